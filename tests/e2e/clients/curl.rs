//! curl over HTTP/1.1 and HTTP/2.

use std::path::Path;

use selvedge_tests::{Built, Upstream, fixture, route};

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

/// Repeats itself, as pages do.
fn page() -> String {
    (0..400).map(|line| format!("<p>line {line} says much the same as the one before</p>\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_decodes_every_coding_of_a_stored_page_and_of_a_workers_answer() {
    let built = Built::start().await;
    let upstream = Upstream::start(|_| {
        let answer =
            http::Response::builder().header("content-type", "text/html").header("cache-control", "max-age=60").header("etag", "\"a\"");
        answer.body(page().into()).expect("an answer")
    })
    .await;
    built.cluster.apply(vec![route("stored.test/*", None, Some(&upstream.url()))]).await;
    let script = format!("export default {{ fetch: () => new Response({:?}, {{ headers: {{ 'content-type': 'text/html' }} }}) }};", page());
    built.cluster.deploy("made", &script).await;
    let port = built.edge.address("https").port();
    let ask = |host: &str, version: &str, coding: &str| {
        let resolve = format!("{host}:{port}:127.0.0.1");
        let (url, accept) = (format!("https://{host}:{port}/"), format!("Accept-Encoding: {coding}"));
        let told = "|%header{content-encoding}|%header{vary}|%{size_download}";
        let arguments = ["-sSk", "--max-time", "20", "--compressed", "-H", &accept, "--resolve", &resolve, version, "-w", told, &url];
        output(Path::new("curl"), &arguments)
    };
    tokio::task::block_in_place(|| {
        for host in ["stored.test", "made.test"] {
            for coding in ["br", "zstd", "gzip", "br;q=0.1, gzip", "identity", "zstd, br;q=0.5, gzip;q=0"] {
                for version in ["--http1.1", "--http2"] {
                    let text = ask(host, version, coding);
                    let mut parts = text.rsplitn(4, '|');
                    let (size, vary, named, body) = (parts.next(), parts.next(), parts.next(), parts.next());
                    assert_eq!(body, Some(page().as_str()), "{host} {coding} {version}");
                    let expected = match coding {
                        "br;q=0.1, gzip" => "gzip",
                        "identity" => "",
                        "zstd, br;q=0.5, gzip;q=0" => "zstd",
                        other => other,
                    };
                    assert_eq!((named, vary), (Some(expected), Some("Accept-Encoding")), "{host} {coding} {version}");
                    let size: usize = size.and_then(|size| size.parse().ok()).expect("a size");
                    assert_eq!(size * 4 < page().len(), coding != "identity", "{host} {coding} {version}: {size} bytes came");
                }
            }
        }
    });
    assert_eq!(upstream.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_sees_an_event_before_the_next_one_is_made_though_it_is_compressed() {
    let built = Built::start().await;
    let script = "export default { fetch() {
        const body = new ReadableStream({ start(controller) { controller.enqueue(new TextEncoder().encode('data: first\\n\\n')); } });
        return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
    } };";
    built.cluster.deploy("events", script).await;
    let url = format!("http://{}/", built.edge.address("http"));
    for coding in ["br", "zstd", "gzip"] {
        let accept = format!("Accept-Encoding: {coding}");
        let arguments = ["-sSN", "--max-time", "2", "--compressed", "-H", "Host: events.test", "-H", &accept, "-D", "-", &url];
        let run = tokio::task::block_in_place(|| std::process::Command::new("curl").args(arguments).output()).expect("curl runs");
        let text = String::from_utf8_lossy(&run.stdout);
        assert_eq!(run.status.code(), Some(28), "it ends by its own time: {text} {}", String::from_utf8_lossy(&run.stderr));
        assert!(text.contains(&format!("content-encoding: {coding}")) && text.ends_with("data: first\n\n"), "{text:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_sees_early_hints_over_http2_and_none_over_http1() {
    let built = Built::start().await;
    let upstream = Upstream::start(|_| {
        let answer = http::Response::builder().header("link", "</style.css>; rel=preload; as=style").header("cache-control", "no-cache");
        answer.body("page".into()).expect("an answer")
    })
    .await;
    let hinted = selvedge_origin::api::wire::RouteSpec { early_hints: true, ..route("hinted.test/*", None, Some(&upstream.url())) };
    built.cluster.apply(vec![hinted]).await;
    let port = built.edge.address("https").port();
    let ask = |version: &str| {
        let (resolve, url) = (format!("hinted.test:{port}:127.0.0.1"), format!("https://hinted.test:{port}/"));
        output(Path::new("curl"), &["-sSki", "--max-time", "20", "--resolve", &resolve, version, &url])
    };
    tokio::task::block_in_place(|| {
        assert!(!ask("--http2").contains(" 103"), "nothing is known yet");
        let text = ask("--http2");
        assert!(text.starts_with("HTTP/2 103") && text.contains("link: </style.css>; rel=preload; as=style"), "{text}");
        assert!(text.contains("HTTP/2 200") && text.ends_with("page"), "{text}");
        assert!(!ask("--http1.1").contains(" 103"));
    });
}
