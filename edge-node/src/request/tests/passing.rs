//! Routing, errors, forwarding fields, redirects to https, records.

use http::{Method, Request};
use selvedge_runtime::Body;

use super::world::*;
use crate::listen::Interim;

#[tokio::test]
async fn without_a_route_the_answer_is_404_and_says_so() {
    let world = World::new(Vec::new());
    let response = world.get("/x").await;
    assert_eq!(response.status(), 404);
    assert_eq!(
        field(response.headers(), "proxy-status"),
        "edge-1; error=destination_not_found; details=\"no route for www.example.org/x\""
    );
    let id = field(response.headers(), "x-request-id");
    assert!(text(response).await.contains(&id));
}

#[tokio::test]
async fn malformed_names_paths_and_methods_are_refused() {
    let world = World::new(Vec::new());
    let no_host = Request::builder().uri("/").body(Body::empty()).expect("a request");
    assert_eq!(world.send(no_host).await.status(), 400);
    assert_eq!(world.get("/a/../b").await.status(), 400);
    for (method, status) in [(Method::TRACE, 405), (Method::CONNECT, 501)] {
        let mut request = get("/", &[]);
        *request.method_mut() = method;
        let response = world.send(request).await;
        assert_eq!(response.status(), status);
        assert!(response.headers().contains_key("allow"));
    }
}

#[tokio::test]
async fn an_upstream_sees_who_asks_and_no_hop_fields() {
    let server = Server::start(|request| async move {
        let seen: Vec<String> =
            request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
        http::Response::builder()
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("alt-svc", "h3=\":1\"")
            .header("x-end", "1")
            .body(Body::full(seen.join("\n")))
            .expect("a response")
    })
    .await;
    let world = World::new(vec![to_upstream("www.example.org/*", &server)]);
    let fields = [
        ("x-forwarded-for", "6.6.6.6"),
        ("cf-connecting-ip", "6.6.6.6"),
        ("connection", "x-secret"),
        ("x-secret", "1"),
        ("te", "trailers"),
        ("cookie", "a=b"),
    ];
    let response = world.send(get("/", &fields)).await;
    assert!(response.headers().contains_key("x-end"));
    assert!(!response.headers().contains_key("x-hop") && !response.headers().contains_key("alt-svc"));
    let seen = text(response).await;
    for line in [
        "host: www.example.org",
        "cf-connecting-ip: 192.0.2.7",
        "x-forwarded-for: 192.0.2.7",
        "x-forwarded-proto: http",
        "x-forwarded-host: www.example.org",
        "forwarded: for=192.0.2.7;host=\"www.example.org\";proto=http",
        "via: 1.1 edge-1",
        "cdn-loop: selvedge",
        "cookie: a=b",
    ] {
        assert!(seen.lines().any(|seen| seen == line), "{line} is not in\n{seen}");
    }
    for gone in ["6.6.6.6", "x-secret", "te:"] {
        assert!(!seen.contains(gone), "{gone} is in\n{seen}");
    }
}

#[tokio::test]
async fn a_request_body_reaches_the_upstream() {
    use http_body_util::BodyExt;
    let server = Server::start(|request| async move {
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        http::Response::new(Body::full(body))
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    let request = Request::post("/").header("host", "a").header("content-length", "5").body(Body::full("hello")).expect("a request");
    assert_eq!(text(world.send(request).await).await, "hello");
}

#[tokio::test]
async fn an_upstream_that_is_away_is_502_without_its_address() {
    let server = Server::fixed(&[], "").await;
    let route = to_upstream("/*", &server);
    let address = server.address.to_string();
    drop(server);
    let response = World::new(vec![route]).get("/").await;
    assert_eq!(response.status(), 502);
    assert!(field(response.headers(), "proxy-status").contains("error=connection_refused"));
    assert_eq!(field(response.headers(), "cache-control"), "no-store");
    assert!(!text(response).await.contains(&address));
}

#[tokio::test]
async fn cleartext_is_redirected_where_the_route_says_so() {
    let server = Server::fixed(&[], "secure").await;
    let mut route = to_upstream("/*", &server);
    route.redirect_to_https = true;
    let world = World::new(vec![route]);
    world.path.announce_https(8443);
    let response = world.get("/a?b=c").await;
    assert_eq!(response.status(), 308);
    assert_eq!(field(response.headers(), "location"), "https://www.example.org:8443/a?b=c");
    let response = world.path.serve(get("/a", &[]), &connection(true), Interim::none()).await.into_response();
    assert_eq!(text(response).await, "secure");
}

#[tokio::test]
async fn a_loop_over_nodes_ends() {
    let server = Server::fixed(&[], "").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    let around = ["selvedge"; 8].join(", ");
    let response = world.send(get("/", &[("cdn-loop", &around)])).await;
    assert!(field(response.headers(), "proxy-status").contains("error=proxy_loop_detected"));
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn a_record_is_complete_when_the_body_has_been_sent() {
    let server = Server::start(|_| async {
        let chunks = futures::stream::iter(["one", "two"].map(|chunk| Ok(bytes::Bytes::from_static(chunk.as_bytes()))));
        http::Response::new(Body::chunks(chunks))
    })
    .await;
    let world = World::new(vec![to_upstream("www.example.org/*", &server)]);
    let response = world.get("/x?y").await;
    assert!(world.records.0.lock().is_empty());
    assert_eq!(text(response).await, "onetwo");
    let records = world.records.0.lock().clone();
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!((record.status.map(|status| status.as_u16()), record.response_bytes, record.complete), (Some(200), 6, true));
    assert_eq!((record.path.as_ref(), record.route.as_deref()), ("/x?y", Some("www.example.org/*")));
    assert_eq!(world.metrics.requests_running.get(), 0);
}
