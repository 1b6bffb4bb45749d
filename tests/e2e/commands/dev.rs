//! dev: a saved file is swapped in, a broken one is not, and nothing is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use selvedge_tests::client::{self, Over, get};
use selvedge_tests::{Daemon, eventually};

/// How long a swap is waited for on a busy machine; `tests/timing` measures it.
const SWAP_WAIT: Duration = Duration::from_secs(20);

fn script(version: &str) -> String {
    format!(
        "import {{ place }} from './place';\nexport default {{\n  fetch(request: Request, env: {{ WHO: string }}) {{\n    console.log('asked');\n    \
         if (request.url.endsWith('/throw')) throw new Error('mapped');\n    return new Response(`{version} ${{env.WHO}} ${{place}}`);\n  }},\n}};\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn saving_a_file_swaps_the_worker_without_a_dropped_request() {
    let dir = tempfile::tempdir().unwrap();
    super::write_worker(dir.path(), "page", &script("one"));
    std::fs::write(dir.path().join("place.ts"), "export const place: string = 'here';\n").unwrap();
    std::fs::write(dir.path().join(".dev.vars"), "WHO=me\n").unwrap();
    let mut dev = Daemon::start(&["dev", &dir.path().to_string_lossy(), "--port", "0"]);
    let https = dev.address("https");
    let says = async |text: &str| {
        let answer = client::send(Over::H3, https, get("localhost", "/")).await.ok()?;
        (answer.text() == text).then_some(())
    };
    eventually("the first version answers", SWAP_WAIT, async || says("one me here").await).await;

    let over = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let over = over.clone();
        async move {
            let mut bad = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let answer = client::send(Over::H2, https, get("localhost", "/")).await;
                if answer.as_ref().map_or(true, |answer| answer.status != 200) {
                    bad.push(format!("{answer:?}"));
                }
            }
            bad
        }
    });
    std::fs::write(dir.path().join("index.ts"), script("two")).unwrap();
    eventually("the saved file is swapped in", SWAP_WAIT, async || says("two me here").await).await;
    std::fs::write(dir.path().join("place.ts"), "export const place: string = ;\n").unwrap();
    eventually("the mistake is shown", SWAP_WAIT, async || dev.log().contains("the old version goes on").then_some(())).await;
    assert!(dev.log().contains("place.ts:1:30"), "{}", dev.log());
    std::fs::write(dir.path().join("place.ts"), "export const place: string = 'there';\n").unwrap();
    eventually("an imported file is swapped in", SWAP_WAIT, async || says("two me there").await).await;
    over.store(true, Ordering::Relaxed);
    assert_eq!(load.await.unwrap(), Vec::<String>::new(), "dropped requests");

    client::send(Over::H3, https, get("localhost", "/throw")).await.unwrap();
    eventually("the exception is shown where it was thrown", SWAP_WAIT, async || dev.log().contains("index.ts:5:").then_some(())).await;
    let log = dev.log();
    let asked = log.lines().find(|line| line.contains("log asked")).unwrap_or_default();
    assert!(asked.contains("index.ts:4:"), "where console was called: {asked}");
    assert!(log.contains("of 200 ms") && log.contains("of 128 MiB") && log.contains("cache off"), "{log}");
    assert!(dev.terminate().success());
}

#[test]
fn a_signal_is_heard_while_the_bundler_works() {
    let dir = tempfile::tempdir().unwrap();
    super::write_worker(dir.path(), "page", &script("one"));
    // Nobody writes into it: whoever reads it waits.
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("place.ts"), rustix::fs::Mode::RWXU).unwrap();
    let mut dev = Daemon::start(&["dev", &dir.path().to_string_lossy(), "--port", "0"]);
    assert!(dev.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn saving_only_a_setting_of_the_routes_takes_effect() {
    let dir = tempfile::tempdir().unwrap();
    let script = "export default { fetch: () => new Response('word '.repeat(1000), { headers: { 'content-type': 'text/plain', link: '</a.css>; rel=preload; as=style' } }) }";
    super::write_worker(dir.path(), "page", script);
    let mut dev = Daemon::start(&["dev", &dir.path().to_string_lossy(), "--port", "0"]);
    let https = dev.address("https");
    let coding = async || {
        let mut request = get("localhost", "/");
        request.headers_mut().insert("accept-encoding", http::HeaderValue::from_static("gzip"));
        let answer = client::send(Over::H2, https, request).await.ok()?;
        (answer.status == 200).then(|| answer.header("content-encoding").to_owned())
    };
    assert_eq!(eventually("the first version answers", SWAP_WAIT, coding).await, "gzip", "as it is by default");
    let configured = |settings: &str| {
        let config = format!(r#"{{"name": "page", "main": "index.ts", "compatibility_date": "2026-08-01", {settings}}}"#);
        std::fs::write(dir.path().join("wrangler.jsonc"), config).unwrap();
    };
    configured(r#""compress": {"enabled": false}"#);
    eventually("answers are not compressed any more", SWAP_WAIT, async || coding().await.filter(String::is_empty)).await;
    configured(r#""compress": {"enabled": false}, "early_hints": true"#);
    let swaps = async || (dev.log().matches("swapped in").count() == 2).then_some(());
    eventually("the save of early_hints is swapped in", SWAP_WAIT, swaps).await;
    configured(r#""compress": {"enabled": true}"#);
    eventually("answers are compressed again", SWAP_WAIT, async || coding().await.filter(|coding| coding == "gzip")).await;
    assert!(dev.terminate().success());
}
