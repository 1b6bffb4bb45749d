//! What answers to HEAD and POST tell the cache while others change what is stored.

use std::sync::Arc;

use futures::StreamExt;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use selvedge_runtime::Body;
use tokio::sync::Semaphore;

use super::world::*;

fn request(method: Method, path: &str) -> Request<Body> {
    let mut request = get(path, &[]);
    *request.method_mut() = method;
    request
}

#[tokio::test]
async fn an_answer_to_post_that_is_read_slowly_does_not_come_back_after_it_was_made_invalid() {
    let gate = Arc::new(Semaphore::new(0));
    let opens = gate.clone();
    let server = Server::start(move |request: Request<Incoming>| {
        let opens = opens.clone();
        async move {
            let answer = Response::builder().header("cache-control", "max-age=60").header("content-location", "/own");
            match *request.method() {
                Method::POST => {
                    let pieces = futures::stream::iter(["first, ", "made by POST"]).enumerate().then(move |(number, piece)| {
                        let opens = opens.clone();
                        async move {
                            if number > 0 {
                                opens.acquire().await.expect("open").forget();
                            }
                            Ok(piece.into())
                        }
                    });
                    answer.body(Body::chunks(pieces.boxed())).expect("a response")
                }
                Method::PUT => response(204, &[], ""),
                _ => answer.body(Body::full("second")).expect("a response"),
            }
        }
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    for (put, stored) in [(true, "second"), (false, "first, made by POST")] {
        let slow = world.send(request(Method::POST, "/own")).await;
        if put {
            assert_eq!(world.send(request(Method::PUT, "/own")).await.status(), 204);
            assert_eq!(world.look("/own").await.2, "second");
            world.rest().await;
        }
        gate.add_permits(1);
        assert_eq!(text(slow).await, "first, made by POST");
        let (_, said, body) = world.look("/own").await;
        assert!(said.contains("; hit;") && body == stored, "{said}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_head_does_not_bring_back_what_was_made_invalid_while_it_was_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let (gate, asked) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (opens, asks) = (gate.clone(), asked.clone());
    let server = Server::start(move |request: Request<Incoming>| {
        let (opens, asks) = (opens.clone(), asks.clone());
        async move {
            if *request.method() == Method::HEAD {
                asks.add_permits(1);
                opens.acquire().await.expect("open").forget();
            }
            response(200, &[("cache-control", "max-age=60"), ("etag", "\"1\"")], "page")
        }
    })
    .await;
    let world = || World::on_disk(vec![to_upstream("/*", &server)], 16 << 20, folder.path());
    let before = world();
    before.look("/").await;
    before.rest().await;
    drop(before);
    let after = world();
    after.path.cache().settled().await;
    after.pass(90);
    let head = after.send(request(Method::HEAD, "/"));
    let post = async {
        asked.acquire().await.expect("open").forget();
        after.send(request(Method::POST, "/")).await;
        gate.add_permits(1);
    };
    let (head, ()) = futures::join!(head, post);
    assert!(field(head.headers(), "cache-status").contains("detail=head"), "{:?}", head.headers());
    after.rest().await;
    assert!(after.look("/").await.1.contains("fwd=uri-miss"), "POST has made it invalid");
}
