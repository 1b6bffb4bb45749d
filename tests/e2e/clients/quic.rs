//! aioquic: an HTTP/3 client that shares no code with the server.

use std::path::Path;

use selvedge_tests::{Built, fixture};

use super::output;

#[tokio::test(flavor = "multi_thread")]
async fn aioquic_speaks_http3() {
    let built = Built::start().await;
    built.cluster.deploy("echo", &fixture("echo")).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var_os("SELVEDGE_PYTHON").map_or_else(|| root.join("../target/venv/bin/python"), Into::into);
    let script = root.join("e2e/clients/h3_client.py").to_string_lossy().into_owned();
    let port = built.edge.address("https").port().to_string();
    let text = tokio::task::block_in_place(|| output(&python, &[&script, &port, "echo.test", "/", "300000"]));
    assert_eq!(text.trim(), "200 POST https://echo.test/ 300000 equal", "{text}");
}
