//! apply: the difference, and what it leaves.

use selvedge_tests::Upstream;
use selvedge_tests::client::{self, Over, get};

use super::Installation;

#[tokio::test(flavor = "multi_thread")]
async fn a_site_file_adds_and_removes_routes() {
    let upstream = Upstream::start(|_| http::Response::new("a page".into())).await;
    let installation = Installation::start();
    // In cleartext: a name without a route has no certificate either.
    let http = installation.edge.as_ref().unwrap().address("http");
    let file = installation.dir.path().join("site.toml");
    let route = |pattern: &str| format!("[[route]]\npattern = \"{pattern}\"\nupstream = \"{}\"\n", upstream.url());
    let apply = |text: String, more: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let path = file.to_string_lossy().into_owned();
        let ended = installation.run(&[&["apply", &path], more].concat());
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended.document()
    };
    let status = async |host: &str| client::send(Over::Cleartext, http, get(host, "/")).await.unwrap().status;

    let both = format!("name = \"www\"\n{}{}", route("a.test/*"), route("b.test/*"));
    std::fs::write(&file, format!("{both}[route.cache]\nttl_jitter_percent = 7\n")).unwrap();
    let shown = installation.run_for_people(&["apply", &file.to_string_lossy(), "--dry-run"]).stdout;
    assert!(shown.contains("+ b.test/*") && shown.contains("    cache.ttl_jitter_percent: 7\n"), "{shown}");
    let shown = apply(both.clone(), &["--dry-run"]);
    assert_eq!((shown["diff"]["added"].as_array().unwrap().len(), &shown["seq"]), (2, &serde_json::Value::Null));
    let ended = apply(both, &[]);
    assert_eq!((&ended["result"], &ended["nodes"][0]["state"]), (&"applied".into(), &"applied".into()), "{ended}");
    assert_eq!(status("a.test").await, 200, "it ends when the node has it");
    let other = format!("name = \"www\"\n{}{}[route.cache]\nttl_jitter_percent = 7\n", route("a.test/*"), route("b.test/*"));
    std::fs::write(&file, other).unwrap();
    let shown = installation.run_for_people(&["apply", &file.to_string_lossy(), "--dry-run"]).stdout;
    assert!(
        shown.contains("~ b.test/*") && shown.contains("    cache.ttl_jitter_percent: 0 -> 7\n") && !shown.contains("a.test"),
        "{shown}"
    );
    let shown = apply(format!("name = \"www\"\n{}", route("b.test/*")), &[]);
    assert_eq!(shown["diff"]["removed"][0]["pattern"], "a.test/*");
    assert_eq!(status("a.test").await, 404);
    assert_eq!(status("b.test").await, 200);
}
