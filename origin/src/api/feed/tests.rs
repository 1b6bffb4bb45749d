//! A commit between the follower's two looks at the store, staged by the store itself.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Follower, OpenFeed, Permit, next_heard_ms};
use crate::api::wire::{NodeJoin, PurgeState, join_message};
use crate::feed::{Accepted, FeedVerifier, Position};
use crate::keys::{PublicKey, Purpose, SigningKey};
use crate::ledger::{Act, Ledger};
use crate::registry::{self, Digest, NodeName, RequestId};
use crate::store::{Answer, Batch, Files, LogEntry, Meta, Request, Sqlite};

type Commit = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// A store in which something is committed right after the log was found to have nothing new.
struct Staged {
    store: Sqlite,
    commit: Arc<Mutex<Option<Commit>>>,
}

impl Meta for Staged {
    fn read_log(&self, after: u64, limit: usize) -> Answer<'_, Vec<LogEntry>> {
        Box::pin(async move {
            let entries = self.store.read_log(after, limit).await?;
            let commit = self.commit.lock().take_if(|_| entries.is_empty());
            if let Some(commit) = commit {
                commit().await;
            }
            Ok(entries)
        })
    }

    fn commit(&self, batch: Batch) -> Answer<'_, Position> {
        self.store.commit(batch)
    }

    fn get(&self, key: &str) -> Answer<'_, Option<Vec<u8>>> {
        self.store.get(key)
    }

    fn scan(&self, after: &str, limit: usize) -> Answer<'_, Vec<(String, Vec<u8>)>> {
        self.store.scan(after, limit)
    }

    fn head(&self) -> Position {
        self.store.head()
    }

    fn chain_at(&self, seq: u64) -> Answer<'_, Option<Digest>> {
        self.store.chain_at(seq)
    }

    fn find_request(&self, id: &RequestId) -> Answer<'_, Option<Request>> {
        self.store.find_request(id)
    }
}

async fn join(ledger: &Arc<Ledger>, name: &str) -> PublicKey {
    let key = SigningKey::generate().expect("random bytes");
    let name = name.parse().expect("a name");
    let signature = key.sign(Purpose::NodeJoin, join_message(&name, &key.public()).as_bytes());
    let join = NodeJoin { name, region: "here".into(), address: None, key: key.public(), signature };
    let act = Act { actor: "test".into(), reason: None, request: None, moment: ledger.moment() };
    ledger.commit(act, move |state, _| registry::join(state, &join), |_, ()| ()).await.expect("joins");
    key.public()
}

async fn remove(ledger: &Arc<Ledger>, node: NodeName) {
    let act = Act { actor: "test".into(), reason: None, request: None, moment: ledger.moment() };
    ledger.commit(act, move |state, _| registry::remove(state, &node), |_, ()| ()).await.expect("removes");
}

fn follower(ledger: &Arc<Ledger>, node: NodeName, key: PublicKey) -> Follower {
    Follower {
        _open: OpenFeed::new(ledger, &node),
        ledger: ledger.clone(),
        stop: CancellationToken::new(),
        seat: Arc::new(crate::api::desk::Desk::default()).seat(&node, true),
        permit: Arc::new(Permit::new(ledger, &node, key)),
        node,
        at: None,
        ready: VecDeque::new(),
        greeted: false,
        heard_ms: 0,
    }
}

#[tokio::test]
async fn a_commit_between_head_and_log_reaches_a_follower_as_an_entry() {
    let folder = tempfile::tempdir().expect("a folder");
    let commit = Arc::new(Mutex::new(None));
    let store = Staged { store: Sqlite::open(&folder.path().join("registry.db")).expect("a store"), commit: commit.clone() };
    let files = Files::open(&folder.path().join("blobs")).expect("a folder of blobs");
    let key = SigningKey::generate().expect("random bytes");
    let mut verifier = FeedVerifier::new(key.public(), None);
    let ledger = Arc::new(Ledger::open(Arc::new(store), Arc::new(files), key).await.expect("an empty registry"));
    let key = join(&ledger, "edge-1").await;
    let mut follower = follower(&ledger, "edge-1".parse().expect("a name"), key);
    let line = follower.next().await.expect("a snapshot");
    assert!(matches!(verifier.accept(&line), Ok(Accepted::Reset(_))), "a follower without a position begins with a snapshot");

    let late = ledger.clone();
    *commit.lock() = Some(Box::new(move || {
        Box::pin(async move {
            join(&late, "edge-2").await;
        })
    }));
    let line = follower.next().await.expect("a line");
    assert!(commit.lock().is_none(), "the commit came between the two looks");
    let accepted = verifier.accept(&line).expect("signed, and the next");
    assert!(matches!(accepted, Accepted::Entry(_)), "{accepted:?} instead of the entry");
}

#[tokio::test]
async fn a_feed_is_its_key_s_and_not_that_of_whoever_takes_the_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Sqlite::open(&folder.path().join("registry.db")).expect("a store");
    let files = Files::open(&folder.path().join("blobs")).expect("a folder of blobs");
    let key = SigningKey::generate().expect("random bytes");
    let ledger = Arc::new(Ledger::open(Arc::new(store), Arc::new(files), key).await.expect("an empty registry"));
    let node: NodeName = "edge-1".parse().expect("a name");
    let revoked = join(&ledger, "edge-1").await;
    let mut before = follower(&ledger, node.clone(), revoked);
    before.next().await.expect("a snapshot");
    remove(&ledger, node.clone()).await;
    let key = join(&ledger, "edge-1").await;
    let mut after = follower(&ledger, node.clone(), key);
    assert!(before.next().await.is_none(), "the key was revoked");
    assert!(after.next().await.is_some());
    drop(before);
    let away_ms = ledger.now_ms() + 3_600_000;
    let state = |ledger: &Ledger| ledger.followers(|followers, state| followers.purge_nodes(state, 1, away_ms).nodes[0].state);
    assert_eq!(state(&ledger), PurgeState::Pending, "the node's feed is open");
    drop(after);
    assert_eq!(state(&ledger), PurgeState::Away);
}

#[test]
fn a_heartbeat_is_later_than_what_was_heard_and_never_far_ahead_of_the_clock() {
    const DAY_MS: u64 = 86_400_000;
    let now = 1_800_000_000_000;
    for (heard, next) in
        [(0, now), (now - 1, now), (now, now + 1), (now + DAY_MS - 1, now + DAY_MS), (now + DAY_MS, now + DAY_MS), (u64::MAX, now + DAY_MS)]
    {
        assert_eq!(next_heard_ms(heard, now), next, "{heard}");
        assert!(next_heard_ms(next, now + 1) > next, "{heard}: whoever holds what was signed is told of a later one");
    }
}
