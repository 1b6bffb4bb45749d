//! The registry at work: asks the rules, commits what they decide, and holds the state that the log adds up to. Everything that the API
//! does goes through here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::bundle::Manifest;
use crate::feed::{FeedSigner, Position};
use crate::keys::SigningKey;
use crate::limits::{
    COMMIT_ATTEMPTS_MAX, ENTRY_JSON_BYTES_MAX, FEED_BATCH, FEED_LINE_BYTES_MAX, RECENT_LINES_BYTES_MAX, RECENT_LINES_MAX, RECORDS_AT_ONCE,
};
use crate::registry::{Change, Digest, Entry, Fleet, Followers, Moment, Plan, Refusal, RequestId, State, StateError, VersionId};
use crate::store::{Batch, Blobs, Meta, Request, StoreError};

/// State, log and bundles of a registry.
pub(crate) struct Ledger {
    meta: Arc<dyn Meta>,
    blobs: Arc<dyn Blobs>,
    key: SigningKey,
    applied: RwLock<Applied>,
    fleet: Mutex<Fleet>,
    followers: Mutex<Followers>,
    /// The last entries as signed lines of the feed, without gaps: every follower wants them at once.
    recent: Mutex<VecDeque<(Position, Bytes)>>,
    /// The end of the log as far as the state has it.
    head: watch::Sender<u64>,
    /// The last snapshot for the feed: nodes that come back together share it.
    snapshot: Mutex<Option<(Position, Bytes)>>,
    /// Counts what long polls wait for: commits, and reports that differ from those before.
    news: watch::Sender<u64>,
    /// Whose turn it is to commit: rules are asked about the state that the commit will change.
    turn: tokio::sync::Mutex<()>,
    clock: Clock,
}

/// The state after an entry of the log.
struct Applied {
    state: State,
    at: Position,
}

/// Unix time that never goes back: the system's at start, then a monotonic clock.
struct Clock {
    start: Instant,
    start_ms: u64,
}

/// Who changes something, why, and how a retry is known.
#[derive(Debug, Clone)]
pub(crate) struct Act {
    /// Who.
    pub(crate) actor: String,
    /// What the operator said.
    pub(crate) reason: Option<String>,
    /// The request's id, and a digest of what was asked.
    pub(crate) request: Option<(RequestId, Digest)>,
    /// When, and the id of what is made.
    pub(crate) moment: Moment,
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    /// A rule.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Records that this build does not understand.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its caller has done as much as it may.
    #[error("more is purged than this token may: try again in {} s", seconds(retry_after))]
    Quota {
        /// When it may try again.
        retry_after: Duration,
    },
    /// One request id for two requests.
    #[error("request id {0} was used for another request")]
    RequestReused(RequestId),
    /// Something of ours that must not fail did.
    #[error("internal: {0}")]
    Internal(String),
}

/// Whole seconds, 1 at least (RFC 9110, section 10.2.3).
pub(crate) fn seconds(wait: &Duration) -> u64 {
    wait.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX).max(1)
}

impl Ledger {
    /// Reads the records of a store.
    pub(crate) async fn open(meta: Arc<dyn Meta>, blobs: Arc<dyn Blobs>, key: SigningKey) -> Result<Self, LedgerError> {
        let mut records = Vec::new();
        loop {
            let after = records.last().map(|(key, _): &(String, Vec<u8>)| key.clone()).unwrap_or_default();
            let page = meta.scan(&after, RECORDS_AT_ONCE).await?;
            if page.is_empty() {
                break;
            }
            records.extend(page);
        }
        let applied = Applied { state: State::from_records(records)?, at: meta.head() };
        let start_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let clock = Clock { start: Instant::now(), start_ms: u64::try_from(start_ms).unwrap_or(u64::MAX) };
        let head = applied.at.seq;
        let fleet = Fleet::expecting(applied.state.nodes().keys(), clock.start_ms);
        Ok(Self {
            meta,
            blobs,
            key,
            applied: RwLock::new(applied),
            fleet: Mutex::new(fleet),
            followers: Mutex::new(Followers::since(clock.start_ms)),
            recent: Mutex::default(),
            head: watch::Sender::new(head),
            snapshot: Mutex::new(None),
            news: watch::Sender::new(0),
            turn: tokio::sync::Mutex::new(()),
            clock,
        })
    }

    /// Unix time in milliseconds; never goes back.
    pub(crate) fn now_ms(&self) -> u64 {
        let since = u64::try_from(self.clock.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.clock.start_ms.saturating_add(since)
    }

    /// Now, with a fresh id.
    pub(crate) fn moment(&self) -> Moment {
        Moment { now_ms: self.now_ms(), id: VersionId::generate() }
    }

    /// The registry's signing key.
    pub(crate) fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The bundles.
    pub(crate) fn blobs(&self) -> &dyn Blobs {
        &*self.blobs
    }

    /// The records and log.
    pub(crate) fn meta(&self) -> &dyn Meta {
        &*self.meta
    }

    /// Looks at the state and where it stands. Nothing may wait inside.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State, &Position) -> T) -> T {
        let applied = self.applied.read();
        look(&applied.state, &applied.at)
    }

    /// The signed line of the feed that holds the whole desired state, and where that stands.
    pub(crate) fn snapshot(&self) -> Result<(Position, Bytes), LedgerError> {
        let mut kept = self.snapshot.lock();
        let at = self.read(|_, at| at.clone());
        if let Some(kept) = kept.as_ref().filter(|(of, _)| *of == at) {
            return Ok(kept.clone());
        }
        // A copy, so that commits need not wait until a large state is written and signed.
        let (at, desired) = self.read(|state, at| (at.clone(), state.desired().clone()));
        let line = FeedSigner::new(&self.key).reset(&at, &desired).map_err(|error| LedgerError::Internal(error.to_string()))?;
        if line.len() > FEED_LINE_BYTES_MAX {
            let said = format!("the snapshot has {} bytes; {FEED_LINE_BYTES_MAX} are allowed", line.len());
            return Err(LedgerError::Internal(said));
        }
        *kept = Some((at.clone(), line.clone()));
        Ok((at, line))
    }

    /// Looks at the nodes' reports, with the state.
    pub(crate) fn fleet<T>(&self, look: impl FnOnce(&mut Fleet, &State) -> T) -> T {
        let applied = self.applied.read();
        look(&mut self.fleet.lock(), &applied.state)
    }

    /// Looks at who follows, with the state.
    pub(crate) fn followers<T>(&self, look: impl FnOnce(&mut Followers, &State) -> T) -> T {
        let applied = self.applied.read();
        look(&mut self.followers.lock(), &applied.state)
    }

    /// The signed lines of the entries after a position, where those of the last entries lead on from it.
    pub(crate) fn recent_lines(&self, after: &Position) -> Vec<(Position, Bytes)> {
        let recent = self.recent.lock();
        let Some(first) = recent.front().map(|(position, _)| position.seq) else { return Vec::new() };
        let Some(skip) = after.seq.saturating_add(1).checked_sub(first) else { return Vec::new() };
        recent.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).take(FEED_BATCH).cloned().collect()
    }

    /// Waits until the log is longer than `after`.
    pub(crate) async fn wait(&self, after: u64) -> Result<(), LedgerError> {
        let waited = self.head.subscribe().wait_for(|head| *head > after).await.map(drop);
        waited.map_err(|_| LedgerError::Internal("the log has ended".to_owned()))
    }

    /// Changes when anything does that a long poll may wait for.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Tells those who wait.
    pub(crate) fn announce(&self) {
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// [`Self::commit_paid`] of what costs nothing.
    pub(crate) async fn commit<T, R>(
        self: &Arc<Self>,
        act: Act,
        rule: impl Fn(&State, &Moment) -> Result<Plan<T>, Refusal> + Send + Sync + 'static,
        answer: impl Fn(Option<u64>, T) -> R + Send + Sync + 'static,
    ) -> Result<R, LedgerError>
    where
        T: Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        self.commit_paid(act, || Ok(()), rule, answer).await
    }

    /// Asks a rule and commits what it decides, once it is paid for; what a request with the same id was answered is paid for already. `answer` is given the entry's number (`None`: there was nothing to commit). When this answers, the
    /// commit is durable. Dropping the future does not undo it: the work is a task of its own, so that the state never misses a commit.
    pub(crate) async fn commit_paid<T, R>(
        self: &Arc<Self>,
        act: Act,
        pay: impl FnOnce() -> Result<(), LedgerError> + Send + 'static,
        rule: impl Fn(&State, &Moment) -> Result<Plan<T>, Refusal> + Send + Sync + 'static,
        answer: impl Fn(Option<u64>, T) -> R + Send + Sync + 'static,
    ) -> Result<R, LedgerError>
    where
        T: Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        let ledger = self.clone();
        let task = tokio::spawn(async move { ledger.commit_here(&act, pay, rule, answer).await });
        task.await.map_err(|error| LedgerError::Internal(error.to_string()))?
    }

    async fn commit_here<T, R>(
        &self,
        act: &Act,
        pay: impl FnOnce() -> Result<(), LedgerError>,
        rule: impl Fn(&State, &Moment) -> Result<Plan<T>, Refusal>,
        answer: impl Fn(Option<u64>, T) -> R,
    ) -> Result<R, LedgerError>
    where
        R: Serialize + DeserializeOwned,
    {
        let _turn = self.turn.lock().await;
        if let Some(first) = self.first_answer(act).await? {
            return Ok(first);
        }
        pay()?;
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            let expected_seq = self.read(|_, at| at.seq);
            let plan = self.read(|state, _| rule(state, &act.moment))?;
            if plan.changes.is_empty() {
                return Ok(answer(None, plan.answer));
            }
            let seq = expected_seq.saturating_add(1);
            let answer = answer(Some(seq), plan.answer);
            let entry = Entry {
                at_ms: act.moment.now_ms,
                actor: act.actor.clone(),
                reason: act.reason.clone(),
                changes: plan.changes,
                before: plan.before,
            };
            let batch = self.batch(act, seq, &entry, &answer)?;
            let bytes = batch.entry.clone();
            match self.meta.commit(batch).await {
                Ok(at) => {
                    self.keep_line(&at, &bytes);
                    self.apply(&at, &entry.changes);
                    return Ok(answer);
                }
                Err(StoreError::HeadMoved { .. }) => self.catch_up().await?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Busy.into())
    }

    /// The answer of a request with the same id, where there was one.
    async fn first_answer<R: DeserializeOwned>(&self, act: &Act) -> Result<Option<R>, LedgerError> {
        let Some((id, fingerprint)) = &act.request else { return Ok(None) };
        let Some(first) = self.meta.find_request(id).await? else { return Ok(None) };
        if first.fingerprint != *fingerprint {
            return Err(LedgerError::RequestReused(id.clone()));
        }
        serde_json::from_slice(&first.answer).map(Some).map_err(|error| LedgerError::Internal(error.to_string()))
    }

    fn batch(&self, act: &Act, seq: u64, entry: &Entry, answer: &impl Serialize) -> Result<Batch, LedgerError> {
        let internal = |error: serde_json::Error| LedgerError::Internal(error.to_string());
        let bytes = serde_json::to_vec(entry).map_err(internal)?;
        if bytes.len() > ENTRY_JSON_BYTES_MAX {
            return Err(Refusal::Limit { what: "bytes of one change".to_owned(), max: ENTRY_JSON_BYTES_MAX }.into());
        }
        let request = match &act.request {
            Some((id, fingerprint)) => {
                let answer = serde_json::to_vec(answer).map_err(internal)?;
                Some(Request { id: id.clone(), fingerprint: fingerprint.clone(), answer })
            }
            None => None,
        };
        let writes = self.read(|state, _| entry.changes.iter().flat_map(|change| state.writes(seq, change)).collect());
        Ok(Batch { expected_seq: seq.saturating_sub(1), entry: bytes, writes, request, now_ms: act.moment.now_ms })
    }

    /// Takes in entries that another registry process on the same store committed.
    async fn catch_up(&self) -> Result<(), LedgerError> {
        loop {
            let at = self.read(|_, at| at.clone());
            let entries = self.meta.read_log(at.seq, FEED_BATCH).await?;
            if entries.is_empty() {
                return Ok(());
            }
            for logged in entries {
                let entry: Entry = serde_json::from_slice(&logged.entry).map_err(|error| LedgerError::Internal(error.to_string()))?;
                self.apply(&Position { epoch: at.epoch.clone(), seq: logged.seq, chain: logged.chain }, &entry.changes);
            }
        }
    }

    /// Keeps the signed line of the newest entry. Where one is missing in between, the earlier ones lead nowhere.
    fn keep_line(&self, at: &Position, entry: &[u8]) {
        let mut recent = self.recent.lock();
        if recent.back().is_some_and(|(last, _)| last.seq.saturating_add(1) != at.seq) {
            recent.clear();
        }
        match FeedSigner::new(&self.key).entry(at, entry) {
            Ok(line) => recent.push_back((at.clone(), line)),
            Err(_) => recent.clear(),
        }
        let mut bytes: usize = recent.iter().map(|(_, line)| line.len()).sum();
        while recent.len() > RECENT_LINES_MAX || bytes > RECENT_LINES_BYTES_MAX {
            let Some((_, line)) = recent.pop_front() else { return };
            bytes -= line.len();
        }
    }

    fn apply(&self, at: &Position, changes: &[Change]) {
        let now_ms = self.now_ms();
        {
            let mut applied = self.applied.write();
            let mut fleet = self.fleet.lock();
            for change in changes {
                applied.state.apply(at.seq, change);
                match change {
                    Change::Promoted { worker, .. } => fleet.committed(worker, at.seq, now_ms),
                    Change::WorkerDeleted { worker } => fleet.deleted(worker),
                    Change::NodeRemoved { node } => {
                        fleet.removed(node);
                        self.followers.lock().removed(node);
                    }
                    Change::Purged(_) => self.followers.lock().committed(at.seq, now_ms),
                    Change::VersionCreated(_) | Change::RoutesSet { .. } | Change::NodeJoined { .. } => {}
                }
            }
            applied.at = at.clone();
        }
        self.head.send_replace(at.seq);
        self.announce();
    }

    /// Deletes blobs that no kept version needs. Gives their number.
    pub(crate) async fn collect(&self) -> Result<usize, LedgerError> {
        let bundles: std::collections::BTreeSet<Digest> = self
            .read(|state, _| state.workers().values().flat_map(|worker| &worker.versions).map(|version| version.bundle.clone()).collect());
        let mut in_use = bundles.clone();
        for bundle in bundles {
            let Some(manifest) = self.blobs.get(&bundle).await? else { continue };
            match Manifest::parse(&manifest) {
                Ok(manifest) => in_use.extend(manifest.blobs().map(|blob| blob.digest.clone())),
                // What a damaged manifest needs is not known: better to keep all than to lose some.
                Err(error) => return Err(LedgerError::Internal(format!("manifest {bundle} is damaged: {error}"))),
            }
        }
        Ok(self.blobs.collect(in_use).await?)
    }
}
