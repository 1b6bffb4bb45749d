//! deploy where a node does not answer or is away, and the end of a node by command.

use std::time::Duration;

use selvedge_tests::Daemon;
use selvedge_tests::client::{self, Over, get};
use serde_json::Value;

use super::Installation;

fn says(text: &str) -> String {
    format!("export default {{ fetch: (): Response => new Response('{text}') }};")
}

/// A stopped process, which goes on when this is dropped.
struct Stopped(i32);

impl Stopped {
    fn new(daemon: &Daemon) -> Self {
        let stopped = Self(daemon.pid() as i32);
        stopped.signal(libc::SIGSTOP);
        stopped
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: kill takes no memory; the id is that of a node that this test started and has not waited for.
        unsafe { libc::kill(self.0, signal) };
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.signal(libc::SIGCONT);
    }
}

fn node_is(document: &Value, state: &str) -> bool {
    document["nodes"][0]["node"] == "node-0" && document["nodes"][0]["state"] == state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_a_node_does_not_take_in_time_ends_with_three_and_names_it_and_so_does_one_without_any_that_is_there() {
    let mut installation = Installation::start();
    let folder = installation.worker("shop", &says("one"));
    assert_eq!(installation.run(&["deploy", &folder]).code, 0);

    // It is there, as its last report is young, and says nothing more.
    let stopped = Stopped::new(installation.edge.as_ref().unwrap());
    installation.worker("shop", &says("two"));
    let ended = installation.run(&["deploy", &folder, "--wait", "1s"]);
    assert_eq!((ended.code, &ended.document()["result"]), (3, &"timed_out".into()), "{}", ended.stderr);
    assert!(node_is(&ended.document(), "pending"), "{}", ended.stdout);
    let shown = installation.run_for_people(&["deploy", &folder, "--wait", "1s"]);
    assert!(shown.code == 3 && shown.stdout.contains("node-0") && shown.stdout.contains("pending"), "{}{}", shown.stdout, shown.stderr);
    drop(stopped);
    let http = installation.edge.as_ref().unwrap().address("http");
    let caught_up = async || (client::send(Over::Cleartext, http, get("shop.test", "/")).await.ok()?.text() == "two").then_some(());
    selvedge_tests::eventually("it goes on, and has what it missed", Duration::from_secs(20), caught_up).await;

    // It is away: listed as such, and no failure of others; here there are none.
    installation.edge.as_mut().unwrap().terminate();
    installation.worker("shop", &says("three"));
    let offline = async || {
        let nodes = installation.run(&["nodes"]).document();
        (nodes[0]["online"] == false).then_some(())
    };
    selvedge_tests::eventually("its last report is old", Duration::from_secs(30), offline).await;
    let ended = installation.run(&["deploy", &folder, "--wait", "1s"]);
    assert_eq!((ended.code, &ended.document()["result"]), (3, &"no_node".into()), "{}", ended.stderr);
    assert!(node_is(&ended.document(), "offline"), "{}", ended.stdout);
    let (data, origin) = (installation.dir.path().join("edge"), installation.dir.path().join("origin"));
    let edge = Daemon::edge("node-0", &data, installation.url(), &origin);
    let back =
        async || (client::send(Over::Cleartext, edge.address("http"), get("shop.test", "/")).await.ok()?.text() == "three").then_some(());
    selvedge_tests::eventually("it picks it up on return", Duration::from_secs(20), back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_goes_on_with_what_it_has_and_learns_nothing_new() {
    let installation = Installation::start();
    let folder = installation.worker("shop", &says("one"));
    assert_eq!(installation.run(&["deploy", &folder]).code, 0);
    let unknown = installation.run(&["nodes", "remove", "nobody"]);
    assert!(unknown.code == 1 && unknown.stderr.contains("nobody"), "{}", unknown.stderr);
    let removed = installation.run(&["nodes", "remove", "node-0"]);
    assert_eq!((removed.code, &removed.document()["removed"]), (0, &"node-0".into()), "{}", removed.stderr);
    assert_eq!(installation.run(&["nodes"]).document(), serde_json::json!([]));
    installation.worker("shop", &says("two"));
    assert_eq!(installation.run(&["deploy", &folder, "--wait", "1s"]).code, 3, "there is no node any more");
    let edge = installation.edge.as_ref().unwrap();
    assert_eq!(client::send(Over::Cleartext, edge.address("http"), get("shop.test", "/")).await.unwrap().text(), "one");
    let told = async || edge.log().contains("revoked").then_some(());
    selvedge_tests::eventually("its log says why", Duration::from_secs(10), told).await;
}
