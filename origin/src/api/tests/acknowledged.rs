//! What a node acknowledges is held against the log, which may be ahead of what this process has taken in.

use super::super::{Asked, Caller};
use super::connections::registry;
use crate::api::wire::Applied;
use crate::store::{Batch, Meta as _};

#[tokio::test]
async fn an_acknowledgement_may_come_before_the_entry_is_taken_in_here() {
    let registry = registry().await;
    let head = registry.store.head();
    // As between the store's commit and what follows it, when a feed has already read the entry.
    let batch = Batch { expected_seq: head.seq, entry: b"{}".to_vec(), writes: vec![], request: None, now_ms: 0 };
    let seq = registry.store.commit(batch).await.expect("commits").seq;
    let ask = |seq: u64| {
        let applied = Applied { epoch: head.epoch.clone(), seq };
        let (head, ()) = http::Request::post("/v1/nodes/self/applied").body(()).expect("a request").into_parts();
        let caller = Caller::Node(registry.node.name().clone(), registry.node.key().public());
        registry.api.applied(&Asked { head, body: serde_json::to_vec(&applied).expect("JSON").into(), caller })
    };
    assert!(ask(seq).is_ok());
    assert!(ask(seq + 1).is_err(), "nobody has applied what there is not");
}
