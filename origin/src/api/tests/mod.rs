//! The API over real sockets, with the typed client and with raw bytes.

mod acknowledged;
mod connections;
mod log;
mod malformed;
mod questions;
mod reports;
mod signed;

use std::time::Duration;

use bytes::Bytes;

use super::wire::{
    Deletion, NewDeployment, NewVersion, NodeReport, NodeState, Removal, Rollback, RouteSpec, SiteApply, WorkerReport, WorkerState,
};
use crate::bundle::{ModuleKind, PackModule, Packed, pack, verify_version};
use crate::client::{Client, NodeIdentity};
use crate::feed::{Accepted, FeedVerifier, Position};
use crate::registry::{RequestId, Share, VersionRecord, WorkerName};
use crate::{Origin, OriginConfig};

struct Fixture {
    origin: Origin,
    admin: Client,
    _folder: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().expect("a folder");
    let origin = Origin::start(OriginConfig::loopback(folder.path())).await.expect("starts");
    let admin = Client::connect(&origin.url(), origin.admin_token()).expect("a client");
    Fixture { origin, admin, _folder: folder }
}

fn name(text: &str) -> WorkerName {
    text.parse().expect("a name")
}

fn bundle(text: &str) -> Packed {
    let module = PackModule {
        specifier: "index.js".into(),
        kind: ModuleKind::EsModule,
        bytes: Bytes::copy_from_slice(text.as_bytes()),
        source_map: None,
    };
    pack("index.js", vec![module]).expect("a bundle")
}

fn version_of(packed: &Packed) -> NewVersion {
    NewVersion {
        bundle: packed.digest.clone(),
        cordon: None,
        vars: [("GREETING".to_owned(), serde_json::json!("hello"))].into(),
        compatibility_date: "2026-08-04".into(),
        compatibility_flags: vec![],
        cpu_ms: Some(50),
        subrequests_max: None,
        message: Some("first".into()),
        request_id: None,
    }
}

fn all_to(version: &VersionRecord, routes: Option<Vec<RouteSpec>>) -> NewDeployment {
    let versions = vec![Share { version: version.id.clone(), percentage: 100.0 }];
    NewDeployment { versions, routes, take_over: false, message: None, request_id: None }
}

fn route(pattern: &str) -> RouteSpec {
    RouteSpec {
        pattern: pattern.into(),
        worker: None,
        upstream: None,
        redirect_to_https: false,
        cache: Default::default(),
        compress: Default::default(),
        early_hints: false,
    }
}

async fn upload(admin: &Client, worker: &str, text: &str) -> VersionRecord {
    let packed = bundle(text);
    admin.upload(&packed).await.expect("uploads");
    admin.create_version(&name(worker), &version_of(&packed)).await.expect("a version")
}

async fn join(fixture: &Fixture, node: &str) -> Client {
    let joining = Client::connect(&fixture.origin.url(), fixture.origin.node_token()).expect("a client");
    let identity = NodeIdentity::generate(node.parse().expect("a name")).expect("a key");
    joining.join(&identity, "here", Some("127.0.0.1:8443")).await.expect("joins");
    joining.as_node(identity.into())
}

fn report(position: Option<&Position>, unsettled: Vec<WorkerReport>) -> NodeReport {
    NodeReport {
        since: None,
        position: position.cloned(),
        region: "here".into(),
        address: None,
        peer: None,
        build: "test".into(),
        feed_refusal: None,
        last_refusal: None,
        unsettled,
        settled: Vec::new(),
    }
}

#[tokio::test]
async fn a_worker_is_uploaded_promoted_followed_and_reported() {
    let fixture = fixture().await;
    let admin = &fixture.admin;
    let node = join(&fixture, "edge-1").await;
    let first = upload(admin, "shop", "export default 1").await;
    assert_eq!(first.number, 1);
    verify_version(&fixture.origin.admin_token().signing_key, &first).expect("signed");
    let promoted = admin.promote(&name("shop"), &all_to(&first, Some(vec![route("Shop.example.org/*")]))).await.expect("promoted");
    assert_eq!(promoted.routes[0].pattern, "shop.example.org/*");

    let mut feed = node.feed(None, 0).await.expect("the feed");
    let mut verifier = FeedVerifier::new(fixture.origin.admin_token().signing_key, None);
    let line = feed.next().await.expect("a line").expect("not the end");
    let Accepted::Reset(desired) = verifier.accept(&line).expect("signed") else { panic!("a reset first") };
    assert_eq!(desired.workers[&name("shop")].deployment, promoted.deployment);
    assert!(desired.routes.contains_key("shop.example.org/*"));
    let manifest = node.blob(&first.bundle).await.expect("a node reads blobs");
    assert_eq!(crate::registry::Digest::of(&manifest), first.bundle);

    let nodes = admin.worker_nodes(&name("shop"), promoted.seq, Duration::ZERO, None).await.expect("nodes");
    assert_eq!((nodes.settled, nodes.nodes[0].state), (false, NodeState::Offline));
    let shop = name("shop");
    let wait = admin.worker_nodes(&shop, promoted.seq, Duration::from_secs(20), Some(&nodes));
    let said = report(verifier.position(), vec![]);
    let (nodes, reported) = tokio::join!(wait, node.report(&said));
    let mark = reported.expect("reported").mark;
    let nodes = nodes.expect("nodes");
    assert_eq!((nodes.settled, nodes.nodes[0].state), (true, NodeState::Active));
    assert!(nodes.nodes[0].ms.is_some_and(|ms| ms < 20_000));

    let second = upload(admin, "shop", "export default 2").await;
    let promoted = admin.promote(&name("shop"), &all_to(&second, None)).await.expect("promoted");
    loop {
        let line = feed.next().await.expect("a line").expect("not the end");
        if let Accepted::Entry(entry) = verifier.accept(&line).expect("signed")
            && entry.changes.iter().any(|change| matches!(change, crate::registry::Change::Promoted { .. }))
        {
            break;
        }
    }
    assert_eq!(verifier.position().map(|at| at.seq), Some(promoted.seq));
    let refused = WorkerReport {
        worker: name("shop"),
        deployment: promoted.deployment.id.clone(),
        state: WorkerState::Refused("module tampered".into()),
        active: vec![first.id.clone()],
    };
    let change = NodeReport { since: mark, ..report(verifier.position(), vec![refused]) };
    assert!(node.report(&change).await.expect("reported").mark.is_some());
    assert_eq!(node.report(&change).await.expect("heard").mark, None, "it goes on from a report before the last: say everything");
    let nodes = admin.worker_nodes(&name("shop"), promoted.seq, Duration::from_secs(20), None).await.expect("nodes");
    assert_eq!((nodes.settled, nodes.nodes[0].state), (true, NodeState::Refused));
    assert_eq!(nodes.nodes[0].reason.as_deref(), Some("module tampered"));

    let back = admin.rollback(&name("shop"), &Rollback::default()).await.expect("rolled back");
    assert_eq!(back.deployment.versions[0].version, first.id);
    assert_eq!(back.routes.len(), 1, "routes stay");
    let status = admin.status().await.expect("status");
    assert_eq!((status.seq, status.workers.len(), status.nodes.len()), (back.seq, 1, 1));
    assert_eq!(admin.deployments(&name("shop")).await.expect("deployments").deployments.len(), 3);
    fixture.origin.shutdown().await;
}

#[tokio::test]
async fn a_follower_resumes_where_it_was_and_hears_a_heartbeat() {
    let fixture = fixture().await;
    let node = join(&fixture, "edge-1").await;
    let key = fixture.origin.admin_token().signing_key;
    let mut verifier = FeedVerifier::new(key, None);
    let mut feed = node.feed(None, 0).await.expect("the feed");
    verifier.accept(&feed.next().await.expect("a line").expect("a reset")).expect("signed");
    drop(feed);
    let version = upload(&fixture.admin, "shop", "export default 1").await;
    let mut feed = node.feed(verifier.position(), 0).await.expect("the feed");
    let line = feed.next().await.expect("a line").expect("an entry");
    let Accepted::Entry(entry) = verifier.accept(&line).expect("signed") else { panic!("no reset: the position is of use") };
    assert_eq!(entry.changes, [crate::registry::Change::VersionCreated(Box::new(version))]);
    drop(feed);
    let mut feed = node.feed(verifier.position(), 0).await.expect("the feed");
    let line = feed.next().await.expect("a line").expect("a greeting");
    assert!(matches!(verifier.accept(&line), Ok(Accepted::Heartbeat { .. })));
    // It was heard by a clock that was an hour ahead, and then started anew with one that is right.
    let ahead = verifier.heard_ms() + 3_600_000;
    let mut feed = node.feed(verifier.position(), ahead).await.expect("the feed");
    let line = feed.next().await.expect("a line").expect("a greeting");
    assert!(matches!(verifier.accept(&line), Ok(Accepted::Heartbeat { at_ms, .. }) if at_ms > ahead), "{line:?}");
    // Another says what nobody can have heard, and shows others what it gets: they take it, and are heard with it.
    let mut feed = node.feed(verifier.position(), u64::MAX).await.expect("the feed");
    let line = feed.next().await.expect("a line").expect("a greeting");
    let latest = crate::limits::HEARD_AHEAD_MAX.as_millis() as u64;
    let bound = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis() as u64 + latest;
    assert!(matches!(verifier.accept(&line), Ok(Accepted::Heartbeat { at_ms, .. }) if at_ms <= bound), "{line:?}");
    let held = verifier.heard_ms();
    tokio::time::sleep(Duration::from_millis(2)).await;
    let mut feed = node.feed(verifier.position(), held).await.expect("the feed");
    let line = feed.next().await.expect("a line").expect("a greeting");
    assert!(matches!(verifier.accept(&line), Ok(Accepted::Heartbeat { at_ms, .. }) if at_ms > held), "{line:?}");
    let mut wrong = verifier.position().cloned().expect("a position");
    wrong.chain = crate::registry::Digest::zero();
    let mut feed = node.feed(Some(&wrong), 0).await.expect("the feed");
    let line = feed.next().await.expect("a line").expect("a reset");
    assert!(matches!(verifier.accept(&line), Ok(Accepted::Reset(_))), "a position of another log leads to a snapshot");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_without_a_shutdown() {
    let folder = tempfile::tempdir().expect("a folder");
    let origin = Origin::start(OriginConfig::loopback(folder.path())).await.expect("starts");
    let admin = Client::connect(&origin.url(), origin.admin_token()).expect("a client");
    let version = upload(&admin, "shop", "export default 1").await;
    admin.promote(&name("shop"), &all_to(&version, Some(vec![route("/*")]))).await.expect("promoted");
    let before = admin.status().await.expect("status");
    let tokens = (origin.admin_token().clone(), origin.node_token().clone());
    drop(origin);
    let origin = Origin::start(OriginConfig::loopback(folder.path())).await.expect("starts again");
    assert_eq!((origin.admin_token().clone(), origin.node_token().clone()), tokens);
    let admin = Client::connect(&origin.url(), origin.admin_token()).expect("a client");
    assert_eq!(admin.status().await.expect("status"), before);
    assert_eq!(admin.versions(&name("shop")).await.expect("versions").versions, [version]);
}

#[tokio::test]
async fn a_second_registry_in_the_same_folder_does_not_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let _origin = Origin::start(OriginConfig::loopback(folder.path())).await.expect("starts");
    let second = Origin::start(OriginConfig::loopback(folder.path())).await.expect_err("refused").to_string();
    assert!(second.contains("another registry"), "{second}");
}

#[tokio::test]
async fn an_incomplete_bundle_makes_no_version() {
    let fixture = fixture().await;
    let packed = bundle("export default 1");
    let refused = fixture.admin.create_version(&name("shop"), &version_of(&packed)).await.expect_err("nothing uploaded");
    assert_eq!(refused.code(), Some("bundle_incomplete"), "{refused}");
    fixture.admin.put_blob(&packed.digest, packed.blobs[&packed.digest].clone()).await.expect("the manifest");
    let refused = fixture.admin.create_version(&name("shop"), &version_of(&packed)).await.expect_err("a module is missing");
    assert!(refused.to_string().contains(packed.manifest.modules[0].blob.digest.as_str()), "{refused}");
    let refused = fixture.admin.put_blob(&packed.digest, Bytes::from_static(b"other")).await.expect_err("other bytes");
    assert_eq!(refused.code(), Some("digest"), "{refused}");
    let module = &packed.manifest.modules[0].blob.digest;
    fixture.admin.put_blob(module, packed.blobs[module].clone()).await.expect("the module");
    let not_a_manifest = NewVersion { bundle: module.clone(), ..version_of(&packed) };
    let refused = fixture.admin.create_version(&name("shop"), &not_a_manifest).await.expect_err("no manifest");
    assert_eq!(refused.code(), Some("bad_bundle"), "{refused}");
    assert_eq!(fixture.admin.upload(&packed).await.expect("uploads"), 0, "all is there");
}

#[tokio::test]
async fn the_same_request_id_does_it_once() {
    let fixture = fixture().await;
    let packed = bundle("export default 1");
    fixture.admin.upload(&packed).await.expect("uploads");
    let ask = NewVersion { request_id: Some("try-1".parse().expect("an id")), ..version_of(&packed) };
    let first = fixture.admin.create_version(&name("shop"), &ask).await.expect("a version");
    let again = fixture.admin.create_version(&name("shop"), &ask).await.expect("the same version");
    assert_eq!(first, again);
    let other = NewVersion { message: Some("other".into()), ..ask };
    let refused = fixture.admin.create_version(&name("shop"), &other).await.expect_err("another request");
    assert_eq!(refused.code(), Some("request_reused"), "{refused}");
}

#[tokio::test]
async fn a_site_takes_a_pattern_only_when_told_to() {
    let fixture = fixture().await;
    let version = upload(&fixture.admin, "shop", "export default 1").await;
    fixture.admin.promote(&name("shop"), &all_to(&version, Some(vec![route("www.example.org/*")]))).await.expect("promoted");
    let site = "www".parse().expect("a name");
    let upstream = RouteSpec { upstream: Some("https://10.0.0.7".into()), ..route("www.example.org/*") };
    let mut apply = SiteApply { routes: vec![upstream], ..Default::default() };
    let refused = fixture.admin.apply_site(&site, &apply).await.expect_err("owned");
    assert!(refused.to_string().contains("belongs to worker shop") && refused.to_string().contains("--take-over"), "{refused}");
    apply.take_over = true;
    apply.dry_run = true;
    let dry = fixture.admin.apply_site(&site, &apply).await.expect("a difference");
    assert_eq!((dry.seq, dry.diff.added.len(), dry.diff.taken_over.len()), (None, 1, 1));
    assert_eq!(fixture.admin.sites().await.expect("sites"), []);
    apply.dry_run = false;
    let applied = fixture.admin.apply_site(&site, &apply).await.expect("applied");
    assert!(applied.seq.is_some());
    let same = fixture.admin.apply_site(&site, &apply).await.expect("nothing to do");
    assert!(same.seq.is_none() && same.diff.is_empty());
    assert_eq!(fixture.admin.workers().await.expect("workers")[0].routes, Vec::<String>::new());
    let gone = fixture.admin.apply_site(&site, &SiteApply::default()).await.expect("removed");
    assert_eq!(gone.diff.removed.len(), 1);
    assert_eq!(fixture.admin.sites().await.expect("sites"), []);
}

#[tokio::test]
async fn a_deletion_whose_answer_was_lost_is_answered_again() {
    let fixture = fixture().await;
    upload(&fixture.admin, "shop", "export default 1").await;
    let deletion = Deletion { request_id: Some(RequestId::generate()), ..Deletion::default() };
    let first = fixture.admin.delete_worker(&name("shop"), &deletion).await.expect("deleted");
    assert_eq!(fixture.admin.delete_worker(&name("shop"), &deletion).await.expect("the same request"), first);
    let other = fixture.admin.delete_worker(&name("shop"), &Deletion::default()).await.expect_err("gone");
    assert_eq!(other.code(), Some("no_worker"));
}

#[tokio::test]
async fn a_removed_node_is_cut_off_and_cannot_come_back_with_its_key() {
    let fixture = fixture().await;
    let joining = Client::connect(&fixture.origin.url(), fixture.origin.node_token()).expect("a client");
    let identity = std::sync::Arc::new(NodeIdentity::generate("edge-1".parse().expect("a name")).expect("a key"));
    joining.join(&identity, "here", None).await.expect("joins");
    joining.join(&identity, "here", None).await.expect("joins again with the same key");
    let thief = NodeIdentity::generate("edge-1".parse().expect("a name")).expect("a key");
    let refused = joining.join(&thief, "here", None).await.expect_err("the name is taken");
    assert_eq!(refused.code(), Some("node_name_taken"), "{refused}");
    let node = joining.as_node(identity.clone());
    let mut feed = node.feed(None, 0).await.expect("the feed");
    feed.next().await.expect("a line").expect("a reset");
    let removal = Removal { request_id: Some(RequestId::generate()) };
    fixture.admin.remove_node(identity.name(), &removal).await.expect("removed");
    fixture.admin.remove_node(identity.name(), &removal).await.expect("the same request: the first answer was lost");
    while let Some(_line) = feed.next().await.expect("ends") {}
    assert_eq!(node.report(&report(None, vec![])).await.expect_err("removed").code(), Some("node_revoked"));
    assert_eq!(joining.join(&identity, "here", None).await.expect_err("revoked").code(), Some("node_revoked"));
    assert_eq!(fixture.admin.remove_node(identity.name(), &Removal::default()).await.expect_err("gone").code(), Some("no_node"));
}

#[tokio::test]
async fn each_token_is_good_for_its_own_things_only() {
    let fixture = fixture().await;
    let joining = Client::connect(&fixture.origin.url(), fixture.origin.node_token()).expect("a client");
    assert_eq!(joining.status().await.expect_err("joining only").code(), Some("forbidden"));
    let refused = joining.feed(None, 0).await.err().expect("joining only");
    assert_eq!(refused.code(), Some("forbidden"));
    let node = join(&fixture, "edge-1").await;
    assert_eq!(node.status().await.expect_err("nodes do not command").code(), Some("forbidden"));
    let identity = NodeIdentity::generate("edge-2".parse().expect("a name")).expect("a key");
    assert_eq!(fixture.admin.join(&identity, "here", None).await.expect_err("not a node token").code(), Some("forbidden"));
    let mut other = fixture.origin.admin_token().clone();
    other.token = crate::tokens::Token::generate().expect("random bytes");
    let stranger = Client::connect(&fixture.origin.url(), &other).expect("a client");
    assert_eq!(stranger.status().await.expect_err("unknown").code(), Some("unauthorized"));
    let impostor = NodeIdentity::generate("edge-1".parse().expect("a name")).expect("a key");
    let impostor = fixture.admin.as_node(impostor.into());
    assert_eq!(impostor.report(&report(None, vec![])).await.expect_err("another key").code(), Some("unauthorized"));
}

#[tokio::test]
async fn over_tls_clients_know_the_registry_by_its_pin() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = OriginConfig { force_tls: true, ..OriginConfig::loopback(folder.path()) };
    let origin = Origin::start(config).await.expect("starts");
    assert!(origin.url().starts_with("https://"));
    let admin = Client::connect(&origin.url(), origin.admin_token()).expect("a client");
    admin.status().await.expect("the pin holds");
    let mut other = origin.admin_token().clone();
    other.authority = Some(crate::registry::Digest::of(b"another authority"));
    let stranger = Client::connect(&origin.url(), &other).expect("a client");
    let refused = stranger.status().await.expect_err("another pin");
    assert!(matches!(refused, crate::client::ClientError::Tls { .. }), "{refused}");
    other.authority = None;
    let public = Client::connect(&origin.url(), &other).expect("a client");
    assert!(matches!(public.status().await, Err(crate::client::ClientError::Tls { .. })), "no public authority vouches");
}

#[tokio::test]
async fn cleartext_is_for_loopback_only() {
    let fixture = fixture().await;
    for url in ["http://192.0.2.1:7070", "ftp://127.0.0.1", "127.0.0.1:7070", "http://127.0.0.1/path", "http://u@127.0.0.1", ""] {
        let refused = Client::connect(url, fixture.origin.admin_token());
        assert!(matches!(refused, Err(crate::client::ClientError::Url { .. })), "{url}");
    }
    drop(fixture.origin);
    let refused = fixture.admin.status().await.expect_err("nobody there").to_string();
    assert!(refused.contains(fixture.admin.url()), "{refused}");
}

#[tokio::test]
async fn a_purge_is_in_the_log_with_who_and_why_and_is_followed_until_the_nodes_have_it() {
    use super::wire::{Applied, NewPurge, PurgeState};
    let fixture = fixture().await;
    let node = join(&fixture, "edge-1").await;
    let _away = join(&fixture, "edge-2").await;
    let mut lines = node.feed(None, 0).await.expect("a feed");
    let mut verifier = FeedVerifier::new(fixture.origin.admin_token().signing_key, None);
    let snapshot = lines.next().await.expect("a line").expect("a line");
    assert!(matches!(verifier.accept(&snapshot), Ok(Accepted::Reset(_))));

    let asked = NewPurge { urls: vec!["https://A.org/x".into()], reason: Some("typo".into()), ..NewPurge::default() };
    let purged = fixture.admin.purge(&asked).await.expect("purges");
    assert_eq!(purged.purge.urls, ["a.org/x"]);
    let line = lines.next().await.expect("a line").expect("a line");
    let Ok(Accepted::Entry(entry)) = verifier.accept(&line) else { panic!("an entry") };
    assert_eq!((entry.actor.as_str(), entry.reason.as_deref()), ("admin", Some("typo")));
    assert_eq!(entry.changes, [crate::registry::Change::Purged(Box::new(purged.purge.clone()))]);

    let before = fixture.admin.purge_nodes(purged.seq, Duration::ZERO, None).await.expect("nodes");
    assert_eq!(before.nodes[0].state, PurgeState::Pending);
    let position = verifier.position().expect("a position").clone();
    let ahead = Applied { epoch: position.epoch.clone(), seq: purged.seq + 1 };
    assert!(node.applied(&ahead).await.is_err(), "nobody has applied what there is not");
    let wait = fixture.admin.purge_nodes(purged.seq, Duration::from_secs(20), Some(&before));
    let applied = Applied { epoch: position.epoch, seq: purged.seq };
    let (nodes, said) = tokio::join!(wait, node.applied(&applied));
    said.expect("acknowledges");
    let nodes = nodes.expect("nodes");
    assert_eq!(nodes.nodes[0].state, PurgeState::Applied);
    assert!(nodes.nodes[0].ms.is_some());
    // A node that closes its feed is away, once it had the time to come back.
    drop(lines);
    let next = fixture.admin.purge(&asked).await.expect("purges");
    let settled = fixture.admin.purge_nodes(next.seq, Duration::from_secs(30), None).await.expect("nodes");
    assert_eq!(settled.nodes[0].state, PurgeState::Away);
}

#[tokio::test]
async fn purges_are_bounded_by_a_quota_that_says_when_to_try_again() {
    use super::wire::NewPurge;
    use crate::limits::{PURGE_BURST, PURGE_TARGETS_MAX};
    let fixture = fixture().await;
    let many = NewPurge { tags: (0..PURGE_TARGETS_MAX).map(|n| n.to_string()).collect(), ..NewPurge::default() };
    let mut refused = None;
    for _ in 0..=PURGE_BURST as usize / PURGE_TARGETS_MAX + 5 {
        refused = fixture.admin.purge(&many).await.err();
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.expect("a bound");
    assert_eq!(refused.code(), Some("quota"));
    assert!(refused.to_string().contains("try again in"), "{refused}");
    let body = serde_json::to_string(&many).expect("JSON");
    let request = malformed::request(fixture.origin.admin_token().token.secret(), "POST", "/v1/purges", &body);
    let raw = malformed::exchange(fixture.origin.address(), &request).await;
    assert!(raw.starts_with("HTTP/1.1 429"), "{raw}");
    assert!(raw.to_ascii_lowercase().contains("retry-after: "), "{raw}");
}

#[tokio::test]
async fn a_purge_that_is_asked_for_again_is_made_and_paid_for_once() {
    use super::wire::{NewPurge, WorkerPurge};
    use crate::limits::{PURGE_BURST, PURGE_TARGETS_MAX, WORKER_PURGE_BURST};
    let fixture = fixture().await;
    let many = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
    let asked = NewPurge { tags: many(PURGE_TARGETS_MAX), request_id: Some(RequestId::generate()), ..NewPurge::default() };
    let first = fixture.admin.purge(&asked).await.expect("purges");
    for _ in 0..PURGE_BURST as usize / PURGE_TARGETS_MAX * 2 {
        assert_eq!(fixture.admin.purge(&asked).await.expect("the first answer"), first);
    }
    let node = join(&fixture, "edge-1").await;
    let version = upload(&fixture.admin, "shop", "export default {}").await;
    fixture.admin.promote(&name("shop"), &all_to(&version, None)).await.expect("promotes");
    let purge = WorkerPurge { tags: many(WORKER_PURGE_BURST as usize), ..WorkerPurge::of(name("shop")) };
    let asked = WorkerPurge { request_id: Some(RequestId::generate()), ..purge.clone() };
    let (first, at_once) = tokio::join!(node.purge_of_worker(&asked), node.purge_of_worker(&asked));
    let first = first.expect("purges");
    assert_eq!(at_once.expect("the same purge"), first);
    assert_eq!(node.purge_of_worker(&asked).await.expect("the first answer"), first);
    assert_eq!(node.purge_of_worker(&purge).await.expect_err("another is too much").code(), Some("quota"));
}

#[tokio::test]
async fn a_node_purges_for_workers_that_there_are_and_for_nobody_else() {
    use super::wire::{NewPurge, WorkerPurge};
    let fixture = fixture().await;
    let node = join(&fixture, "edge-1").await;
    let purge = |worker: &str| WorkerPurge { tags: vec!["T".into()], path_prefixes: vec!["/a".into()], ..WorkerPurge::of(name(worker)) };
    let refused = node.purge_of_worker(&purge("shop")).await.expect_err("there is none");
    assert_eq!(refused.code(), Some("no_worker"));
    let version = upload(&fixture.admin, "shop", "export default {}").await;
    fixture.admin.promote(&name("shop"), &all_to(&version, None)).await.expect("promotes");
    let purged = node.purge_of_worker(&purge("shop")).await.expect("purges");
    assert!(purged.epoch.is_some(), "entries are counted within an epoch");
    assert_eq!((purged.purge.worker, purged.purge.tags), (Some(name("shop")), vec!["t".to_owned()]));
    let forbidden = node.purge(&NewPurge { everything: true, ..NewPurge::default() }).await.expect_err("nodes are no operators");
    assert_eq!(forbidden.code(), Some("forbidden"));
}
