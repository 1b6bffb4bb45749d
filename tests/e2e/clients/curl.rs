//! curl over HTTP/1.1 and HTTP/2.

use std::path::Path;

use selvedge_tests::{Built, fixture};

use super::output;

#[tokio::test(flavor = "multi_thread")]
async fn curl_speaks_http1_and_http2() {
    let built = Built::start().await;
    built.cluster.deploy("hello", &fixture("hello")).await;
    built.cluster.deploy("echo", &fixture("echo")).await;
    let port = built.edge.address("https").port();
    let ask = |host: &str, more: &[&str]| {
        let resolve = format!("{host}:{}:127.0.0.1", port);
        let url = format!("https://{host}:{}/from-curl", port);
        let mut arguments = vec!["-sSk", "--max-time", "20", "--resolve", &resolve, "-w", "|%{http_version}|%{http_code}"];
        arguments.extend(more);
        arguments.push(&url);
        output(Path::new("curl"), &arguments)
    };
    let (hello, echo) = tokio::task::block_in_place(|| {
        ([ask("hello.test", &["--http1.1"]), ask("hello.test", &["--http2"])], ask("echo.test", &["--http2", "-d", "posted"]))
    });
    assert_eq!(hello, ["hello from /from-curl\n|1.1|200", "hello from /from-curl\n|2|200"]);
    assert_eq!(echo, "posted|2|200");
}
