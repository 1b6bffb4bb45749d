//! deploy, status, versions, rollback, delete and their exit codes.

use selvedge_tests::client::{self, Over, get};

use super::Installation;

fn says(text: &str) -> String {
    format!("export default {{ fetch(request: Request): Response {{ return new Response('{text}'); }} }};")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_deployed_refused_rolled_back_and_deleted_by_commands() {
    let installation = Installation::start();
    let https = installation.edge.as_ref().unwrap().address("https");
    let ask = async || client::send(Over::H3, https, get("shop.test", "/")).await.unwrap();

    let folder = installation.worker("shop", &says("one"));
    let first = installation.run(&["deploy", &folder, "--message", "the first"]);
    assert_eq!((first.code, &first.document()["result"]), (0, &"active".into()), "{}", first.stderr);
    assert_eq!(first.document()["nodes"][0]["state"], "active");
    assert_eq!(ask().await.text(), "one");

    installation.worker("shop", &says("two"));
    assert_eq!(installation.run(&["deploy", &folder]).code, 0);
    assert_eq!(ask().await.text(), "two");

    installation.worker("shop", "throw new Error('not today'); export default { fetch() {} };");
    let refused = installation.run(&["deploy", &folder]);
    assert_eq!((refused.code, &refused.document()["result"]), (1, &"refused".into()), "{}", refused.stderr);
    assert!(refused.document()["nodes"][0]["reason"].as_str().unwrap().contains("not today"), "{}", refused.stdout);
    assert_eq!(ask().await.text(), "two");
    let status = installation.run(&["status"]).document();
    let line = &status["nodes"][0]["report"]["unsettled"][0];
    assert_eq!(line["worker"], "shop", "{status}");
    assert!(line["state"]["refused"].as_str().unwrap().contains("not today"), "{status}");
    let shown = installation.run_for_people(&["status"]).stdout;
    assert!(shown.lines().any(|line| line.contains(" refused  2 (") && line.contains("not today")), "by its number: {shown}");

    let rolled_back = installation.run_for_people(&["rollback", "shop", "1"]);
    assert!(rolled_back.code == 0 && rolled_back.stdout.contains("version 1 ("), "{}{}", rolled_back.stdout, rolled_back.stderr);
    assert_eq!(ask().await.text(), "one");
    let versions = installation.run(&["versions", "shop"]).document();
    assert_eq!(versions["versions"].as_array().unwrap().len(), 3);
    let shown = installation.run_for_people(&["status"]).stdout;
    assert!(shown.lines().any(|line| line.contains("all 1") && line.contains("active")) && !shown.contains("refused"), "{shown}");
    let status = installation.run(&["status"]).document();
    assert_eq!((&status["workers"][0]["name"], &status["nodes"][0]["online"]), (&"shop".into(), &true.into()));

    let log = installation.run(&["log", "--limit", "2"]).document();
    assert_eq!(
        (log["entries"].as_array().unwrap().len(), &log["entries"][0]["changes"][0]["promoted"]["worker"]),
        (2, &"shop".into()),
        "{log}"
    );
    assert_eq!(log["entries"][0]["actor"], "admin");

    let deployments = installation.run(&["deployments", "shop"]).document();
    assert_eq!(deployments["deployments"].as_array().unwrap().len(), 4, "{deployments}");
    let shown = installation.run_for_people(&["deployments", "shop"]).stdout;
    assert!(shown.lines().any(|line| line.contains("the first")), "{shown}");
    assert_eq!(installation.run(&["delete", "shop"]).code, 2, "it asks, and nobody can answer");
    assert_eq!(installation.run(&["delete", "shop", "--yes", "-m", "closed"]).code, 0);
    assert_eq!(installation.run(&["log"]).document()["entries"][0]["reason"], "closed");
    // In cleartext: a name without a route has no certificate either.
    let http = installation.edge.as_ref().unwrap().address("http");
    assert_eq!(client::send(Over::Cleartext, http, get("shop.test", "/")).await.unwrap().status, 404, "it ends when the node has it");
}

#[test]
fn a_deployment_without_a_node_ends_with_three() {
    let installation = Installation::without_nodes();
    let folder = installation.worker("shop", &says("one"));
    let ended = installation.run(&["deploy", &folder, "--wait", "200ms"]);
    assert_eq!((ended.code, &ended.document()["result"]), (3, &"no_node".into()), "{}", ended.stderr);
    assert_eq!(installation.run(&["deploy", &folder, "--no-wait"]).code, 0);
    let deleted = installation.run(&["delete", "shop", "--yes"]);
    assert_eq!((deleted.code, &deleted.document()["result"]), (0, &"no_node".into()), "none runs it: {}", deleted.stderr);
}

#[test]
fn a_command_that_fails_says_what_and_where() {
    let mut installation = Installation::without_nodes();
    let folder = installation.worker("shop", "import './missing';\nexport default {};");
    let ended = installation.run(&["deploy", &folder]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("./missing") && ended.stderr.contains("index.ts:1:8"), "{}", ended.stderr);

    std::fs::write(format!("{folder}/wrangler.jsonc"), "{\"name\": \"shop\", \"kv_namespaces\": [{}]}").unwrap();
    let ended = installation.run(&["deploy", &folder]);
    assert!(ended.code == 1 && ended.stderr.contains("kv_namespaces: not supported"), "{}", ended.stderr);

    installation.worker("shop", &says("one"));
    let unknown = std::process::Command::new(selvedge_tests::selvedge()).args(["deploy", &folder]).output().unwrap();
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert_eq!(unknown.status.code(), Some(2), "{said}");
    assert!(said.contains("SELVEDGE_ORIGIN") && said.contains("SELVEDGE_TOKEN_FILE"), "both are missing: {said}");
    let token = installation.dir.path().join("origin/node.token");
    let ended = installation.run(&["nodes", "--token-file", &token.to_string_lossy()]);
    assert!(ended.code == 2 && ended.stderr.contains("commands need admin.token"), "{}", ended.stderr);
    let data = installation.dir.path().join("other");
    let mut misspelt = std::process::Command::new(selvedge_tests::selvedge());
    misspelt.args(["origin", "--listen", "127.0.0.1:0", "--data"]).arg(&data).env("SELVEDGE_LOG", "info,selvedge=loud");
    let misspelt = misspelt.output().unwrap();
    assert!(misspelt.status.code() == Some(2) && !data.exists(), "{misspelt:?}");
    let uneven = std::process::Command::new(selvedge_tests::selvedge()).args(["edge", "--cert", "a.pem", "--check"]).output().unwrap();
    assert_eq!(uneven.status.code(), Some(2), "{uneven:?}");
    assert_eq!(installation.run(&["nodes"]).code, 0);
    installation.origin.kill();
    let ended = installation.run(&["deploy", &folder]);
    assert!(ended.code == 1 && ended.stderr.contains("is `selvedge origin` running there?"), "{}", ended.stderr);
}
