//! Chromium loads a page over HTTP/3.

use std::path::Path;

use base64::Engine;
use selvedge_tests::{Built, Deploy, client, route};

use super::output;

#[tokio::test(flavor = "multi_thread")]
async fn chromium_loads_a_page_over_http3() {
    let built = Built::start().await;
    // Long enough to be compressed.
    let script = "export default { fetch: (request) => new Response('<p>seen over ' + request.cf.httpProtocol + '</p>' + ' '.repeat(2000), \
                  { headers: { 'content-type': 'text/html' } }) };";
    let routes = Some(vec![route("localhost/*", Some("page"), None)]);
    built.cluster.deploy_with("page", script, Deploy { routes, ..Deploy::default() }).await;
    let https = built.edge.address("https");
    let certificate = client::certificate_of(https, "localhost").await.expect("a certificate for localhost");
    let key = ring::digest::digest(&ring::digest::SHA256, public_key(&certificate).expect("a certificate has a public key"));
    let spki = base64::engine::general_purpose::STANDARD.encode(key);
    let profile = tempfile::tempdir().unwrap();
    let page = tokio::task::block_in_place(|| {
        output(
            Path::new("chromium"),
            &[
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                &format!("--user-data-dir={}", profile.path().display()),
                &format!("--origin-to-force-quic-on=localhost:{}", https.port()),
                &format!("--ignore-certificate-errors-spki-list={spki}"),
                // It tries ::1 first, where nobody listens, and does not fall back on QUIC.
                "--host-resolver-rules=MAP localhost 127.0.0.1",
                "--dump-dom",
                &format!("https://localhost:{}/", https.port()),
            ],
        )
    });
    assert!(page.contains("seen over HTTP/3"), "{page}");
    let metrics = client::exchange(built.edge.address("admin"), client::get("admin", "/metrics")).await.expect("metrics").text();
    let compressed = metrics.lines().find_map(|line| line.strip_prefix("selvedge_compressions_total "));
    assert!(compressed.is_some_and(|count| count != "0"), "the page came compressed: {metrics}");
}

/// The SubjectPublicKeyInfo of a DER certificate (RFC 5280, section 4.1): the seventh element of the first element.
fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    let (body, _) = element(certificate)?;
    let (mut rest, _) = element(body.1)?;
    let mut rest_of = rest.1;
    let mut seen = 0;
    while seen < 7 {
        let (found, after) = element(rest_of)?;
        rest = found;
        rest_of = after;
        seen += 1;
    }
    Some(rest.0)
}

/// The first DER element: (with its header, its content), and what follows it.
#[allow(clippy::type_complexity, reason = "three slices of one input")]
fn element(der: &[u8]) -> Option<((&[u8], &[u8]), &[u8])> {
    let first = *der.get(1)? as usize;
    let (header, length) = if first < 0x80 {
        (2, first)
    } else {
        let bytes = first & 0x7f;
        (2 + bytes, der.get(2..2 + bytes)?.iter().fold(0, |length, byte| length << 8 | *byte as usize))
    };
    let whole = der.get(..header + length)?;
    Some(((whole, &whole[header..]), &der[header + length..]))
}
