//! The log as operators read it.

use super::super::wire::{Changed, Deletion};
use super::*;

#[tokio::test]
async fn the_log_says_who_changed_what_newest_first_and_page_by_page() {
    let fixture = fixture().await;
    let admin = &fixture.admin;
    let node = join(&fixture, "edge-1").await;
    let version = upload(admin, "shop", "export default 1").await;
    let mut deployment = all_to(&version, Some(vec![route("shop.example.org/*")]));
    deployment.message = Some("the first".to_owned());
    let promoted = admin.promote(&name("shop"), &deployment).await.expect("promoted");
    admin.delete_worker(&name("shop"), &Deletion { message: Some("closed".into()), ..Deletion::default() }).await.expect("deleted");

    let all = admin.log(None, None).await.expect("the log").entries;
    let seqs: Vec<u64> = all.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, (1..=all.len() as u64).rev().collect::<Vec<_>>(), "newest first, none left out");
    let deleted = all.first().expect("an entry");
    assert_eq!(deleted.reason.as_deref(), Some("closed"));
    assert!(deleted.changes.contains(&Changed::WorkerDeleted { worker: name("shop") }), "{deleted:?}");
    let entry = all.iter().find(|entry| entry.seq == promoted.seq).expect("the promotion");
    assert_eq!((entry.actor.as_str(), entry.reason.as_deref()), ("admin", Some("the first")));
    assert!(entry.changes.iter().any(|change| matches!(change, Changed::Promoted { worker, before: None, .. } if *worker == name("shop"))));
    assert!(entry.changes.iter().any(|change| matches!(change, Changed::RoutesSet { routes: 1, .. })), "{entry:?}");
    let joined = all.last().expect("an entry");
    assert!(matches!(joined.changes.as_slice(), [Changed::NodeJoined { .. }]) && joined.actor == "joining node", "{joined:?}");

    let mut paged = Vec::new();
    loop {
        let before = paged.last().map(|entry: &crate::api::wire::Logged| entry.seq);
        let page = admin.log(before, Some(2)).await.expect("a page").entries;
        assert!(page.len() <= 2);
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, all);
    let refused = node.log(None, None).await.expect_err("for operators only").to_string();
    assert!(refused.contains("forbidden") || refused.contains("refuses"), "{refused}");
}

#[tokio::test]
async fn a_page_of_large_entries_is_short_and_none_is_left_out() {
    use crate::limits::LOG_PAGE_BYTES_MAX;
    use crate::store::{Batch, Meta as _};
    let registry = super::connections::registry().await;
    let entry = |size: usize| {
        let entry = crate::registry::Entry { at_ms: 0, actor: "a".into(), reason: Some("x".repeat(size)), changes: vec![], before: vec![] };
        serde_json::to_vec(&entry).expect("JSON")
    };
    for size in [LOG_PAGE_BYTES_MAX / 3, LOG_PAGE_BYTES_MAX / 3, 1, LOG_PAGE_BYTES_MAX / 2, LOG_PAGE_BYTES_MAX + 1] {
        let expected_seq = registry.store.head().seq;
        let batch = Batch { expected_seq, entry: entry(size), writes: vec![], request: None, now_ms: 0 };
        registry.store.commit(batch).await.expect("commits");
    }
    let mut pages: Vec<Vec<u64>> = Vec::new();
    loop {
        let before = pages.last().and_then(|page| page.last()).map_or(String::new(), |seq| format!("?before={seq}"));
        let (head, ()) = http::Request::get(format!("/v1/log{before}")).body(()).expect("a request").into_parts();
        let asked = crate::api::Asked { head, body: Bytes::new(), caller: crate::api::Caller::Admin };
        let body =
            http_body_util::BodyExt::collect(registry.api.log(&asked).await.expect("a page").into_body()).await.expect("a body").to_bytes();
        let page: crate::api::wire::LogPage = serde_json::from_slice(&body).expect("JSON");
        if page.entries.is_empty() {
            break;
        }
        pages.push(page.entries.iter().map(|entry| entry.seq).collect());
    }
    // The first entry is the join.
    assert_eq!(pages, [vec![6], vec![5, 4, 3], vec![2, 1]]);
}
