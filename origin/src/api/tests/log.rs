//! The log as operators read it.

use super::super::wire::Changed;
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
    admin.delete_worker(&name("shop")).await.expect("deleted");

    let all = admin.log(None, None).await.expect("the log").entries;
    let seqs: Vec<u64> = all.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, (1..=all.len() as u64).rev().collect::<Vec<_>>(), "newest first, none left out");
    let deleted = all.first().expect("an entry");
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
