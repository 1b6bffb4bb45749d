//! What every engine must keep: one suite for all.

use bytes::Bytes;
use futures::TryStreamExt as _;

use super::{Batch, Blobs, Meta, Request, StoreError};
use crate::feed::next_chain;
use crate::limits::BLOB_PIECE_BYTES;
use crate::registry::{Digest, RequestId, Write};

/// A batch that writes one record.
pub(super) fn batch(expected_seq: u64, key: &str, value: Option<&str>) -> Batch {
    Batch {
        expected_seq,
        entry: format!("{{\"n\":{expected_seq}}}").into_bytes(),
        writes: vec![Write { key: key.to_owned(), value: value.map(|value| value.as_bytes().to_vec()) }],
        request: None,
        now_ms: 1,
    }
}

/// The whole contract of [`Meta`]; `open` opens the same store again.
pub(super) async fn meta<M: Meta>(open: impl Fn() -> M) {
    let store = open();
    assert_eq!((store.head().seq, store.head().chain), (0, Digest::zero()));
    numbers_rise_by_one_and_the_head_is_checked(&store).await;
    records_are_read_as_written(&store).await;
    requests_are_remembered(&store).await;
    concurrent_commits_leave_one_winner_for_each_number(&store).await;
    chain_holds(&store).await;
    let head = store.head();
    drop(store);
    let store = open();
    assert_eq!(store.head(), head, "opened again, the log ends where it ended");
    chain_holds(&store).await;
}

async fn numbers_rise_by_one_and_the_head_is_checked(store: &impl Meta) {
    let first = store.commit(batch(0, "a/1", Some("one"))).await.expect("commits");
    assert_eq!(first.seq, 1);
    let refused = store.commit(batch(0, "a/2", Some("two"))).await;
    assert!(matches!(refused, Err(StoreError::HeadMoved { head: 1 })), "{refused:?}");
    assert_eq!(store.get("a/2").await.expect("reads"), None, "a refused batch leaves nothing");
    assert_eq!(store.commit(batch(1, "a/2", Some("two"))).await.expect("commits").seq, 2);
}

async fn records_are_read_as_written(store: &impl Meta) {
    assert_eq!(store.get("a/1").await.expect("reads").as_deref(), Some(b"one".as_slice()));
    store.commit(batch(2, "a/1", Some("changed"))).await.expect("commits");
    assert_eq!(store.get("a/1").await.expect("reads").as_deref(), Some(b"changed".as_slice()));
    let all = store.scan("", 10).await.expect("scans");
    assert_eq!(all.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["a/1", "a/2"]);
    assert_eq!(store.scan("a/1", 10).await.expect("scans").len(), 1);
    assert_eq!(store.scan("", 1).await.expect("scans").len(), 1);
    store.commit(batch(3, "a/1", None)).await.expect("commits");
    assert_eq!(store.get("a/1").await.expect("reads"), None);
}

async fn requests_are_remembered(store: &impl Meta) {
    let request = Request { id: RequestId::generate(), fingerprint: Digest::of(b"asked"), answer: b"answered".to_vec() };
    let seq = store.head().seq;
    store.commit(Batch { request: Some(request.clone()), ..batch(seq, "b", Some("x")) }).await.expect("commits");
    assert_eq!(store.find_request(&request.id).await.expect("reads"), Some(request));
    assert_eq!(store.find_request(&RequestId::generate()).await.expect("reads"), None);
}

async fn concurrent_commits_leave_one_winner_for_each_number(store: &impl Meta) {
    let seq = store.head().seq;
    let attempts = (0..16).map(|n| store.commit(batch(seq, &format!("d/{n}"), Some("x"))));
    let results = futures::future::join_all(attempts).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let written = store.scan("d/", 100).await.expect("scans").iter().filter(|(key, _)| key.starts_with("d/")).count();
    assert_eq!(written, 1);
}

/// Every entry of the log leads from the one before.
pub(super) async fn chain_holds(store: &impl Meta) {
    let (mut seq, mut chain) = (0, Digest::zero());
    loop {
        let entries = store.read_log(seq, 7).await.expect("reads");
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            assert_eq!(entry.seq, seq + 1);
            assert_eq!(entry.chain, next_chain(&chain, &entry.entry));
            assert_eq!(store.chain_at(entry.seq).await.expect("reads"), Some(entry.chain.clone()));
            (seq, chain) = (entry.seq, entry.chain);
        }
    }
    assert_eq!((store.head().seq, store.head().chain), (seq, chain));
    assert_eq!(store.chain_at(seq + 1).await.expect("reads"), None);
    assert_eq!(store.chain_at(u64::MAX).await.expect("reads"), None);
}

/// The whole contract of [`Blobs`]; `open` opens the same store again.
pub(super) async fn blobs<B: Blobs>(open: impl Fn() -> B) {
    let store = open();
    let bytes = Bytes::from_static(b"export default {}");
    let digest = Digest::of(&bytes);
    assert_eq!(store.get(&digest).await.expect("reads"), None);
    assert_eq!(store.touch(&digest).await.expect("reads"), None);
    let refused = store.put(&Digest::of(b"other"), bytes.clone()).await;
    assert!(matches!(refused, Err(StoreError::Digest { .. })), "{refused:?}");
    store.put(&digest, bytes.clone()).await.expect("stores");
    store.put(&digest, bytes.clone()).await.expect("stores the same again");
    drop(store);
    let store = open();
    assert_eq!(store.get(&digest).await.expect("reads"), Some(bytes.clone()));
    let large = Bytes::from([b"export default {};".as_slice(), &[b' '; 3 * BLOB_PIECE_BYTES]].concat());
    store.put(&Digest::of(&large), large.clone()).await.expect("stores");
    let reader = store.read(&Digest::of(&large)).await.expect("reads").expect("a blob");
    assert_eq!(reader.bytes, large.len() as u64);
    let pieces: Vec<Bytes> = reader.pieces.try_collect().await.expect("reads");
    assert!(pieces.concat() == large && pieces.iter().all(|piece| piece.len() <= BLOB_PIECE_BYTES));
    assert!(store.read(&Digest::of(b"other")).await.expect("reads").is_none());
    assert_eq!(store.touch(&digest).await.expect("reads"), Some(bytes.len() as u64));
    let both = futures::future::join(store.put(&digest, bytes.clone()), store.put(&digest, bytes.clone())).await;
    assert!(both.0.is_ok() && both.1.is_ok());
    assert_eq!(store.collect(Default::default()).await.expect("collects"), 0, "what was put today stays");
}
