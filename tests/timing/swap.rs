//! How long `selvedge dev` takes from a saved file to its first answer.

use std::path::Path;
use std::time::{Duration, Instant};

use selvedge_tests::client::{H2Connection, get};
use selvedge_tests::{Daemon, eventually};

use crate::ALONE;

/// The promise.
const SWAP_MAX: Duration = Duration::from_secs(1);
/// How often a file is saved: what else runs on this machine is no part of the promise.
const SAVES_MAX: usize = 3;
/// How long an answer of the new version is waited for.
const SWAP_WAIT: Duration = Duration::from_secs(20);

fn save(dir: &Path, text: &str) {
    let script =
        format!("import {{ place }} from './place';\nexport default {{ fetch: (): Response => new Response(`{text} ${{place}}`) }};\n");
    std::fs::write(dir.join("index.ts"), script).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_file_answers_within_a_second() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let config = r#"{"name": "page", "main": "index.ts", "compatibility_date": "2026-08-01", "routes": ["page.test/*"]}"#;
    std::fs::write(dir.path().join("wrangler.jsonc"), config).unwrap();
    std::fs::write(dir.path().join("place.ts"), "export const place: string = 'here';\n").unwrap();
    save(dir.path(), "first");
    let dev = Daemon::start(&["dev", &dir.path().to_string_lossy(), "--port", "0"]);
    let mut connection = H2Connection::open(dev.address("https"), "localhost").await.unwrap();
    let mut says = async |text: &str| {
        let answer = async || {
            let answer = connection.send(get("localhost", "/")).await.expect("no request is dropped");
            (answer.text() == format!("{text} here")).then_some(())
        };
        eventually(&format!("{text} answers"), SWAP_WAIT, answer).await;
    };
    says("first").await;
    let mut took = Vec::new();
    while took.len() < SAVES_MAX && took.iter().all(|took| *took >= SWAP_MAX) {
        let text = format!("save {}", took.len());
        let saved = Instant::now();
        save(dir.path(), &text);
        says(&text).await;
        took.push(saved.elapsed());
    }
    println!("from the save to its answer: {took:?}");
    assert!(took.iter().any(|took| *took < SWAP_MAX), "{took:?}\n{}", dev.log());
}
