//! Records and log in SQLite: one thread writes, in groups, and answers when the group is on the disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use futures::FutureExt as _;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension as _, Transaction};
use tokio::sync::{oneshot, watch};

use super::schema::{engine, head, open, parse, prepare};
use super::{Answer, Batch, LogEntry, Meta, Request, StoreError};
use crate::feed::{Position, next_chain};
use crate::limits::{COMMIT_GROUP_MAX, COMMIT_QUEUE_MAX, FEED_BATCH_BYTES, LOG_ENTRIES_KEPT, REQUEST_IDS_KEPT};
use crate::registry::{Digest, RequestId};

/// The embedded engine.
pub(crate) struct Sqlite {
    writer: SyncSender<Job>,
    /// For reading: the writer's transactions do not block it (WAL).
    reader: Arc<Mutex<Connection>>,
    head: watch::Receiver<Position>,
}

struct Job {
    batch: Batch,
    answer: oneshot::Sender<Result<Position, StoreError>>,
}

impl Sqlite {
    /// Opens or makes the database. Blocks.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let mut connection = open(path)?;
        let head = prepare(&mut connection)?;
        let reader = open(path)?;
        let (moved, head) = watch::channel(head);
        let (writer, jobs) = sync_channel(COMMIT_QUEUE_MAX);
        // Ends when the last sender is gone, which is this value's.
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || write(connection, &jobs, &moved))
            .map_err(|error| StoreError::Engine(error.to_string()))?;
        Ok(Self { writer, reader: Arc::new(Mutex::new(reader)), head })
    }

    fn read<T: Send + 'static>(&self, query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static) -> Answer<'static, T> {
        let reader = self.reader.clone();
        let work = tokio::task::spawn_blocking(move || query(&reader.lock()));
        async move { work.await.map_err(|error| StoreError::Engine(error.to_string()))? }.boxed()
    }
}

impl Meta for Sqlite {
    fn commit(&self, batch: Batch) -> Answer<'_, Position> {
        let (answer, done) = oneshot::channel();
        let sent = self.writer.try_send(Job { batch, answer });
        async move {
            sent.map_err(|error| match error {
                TrySendError::Full(_) => StoreError::Busy,
                TrySendError::Disconnected(_) => StoreError::Engine("the writer has stopped".to_owned()),
            })?;
            done.await.map_err(|_| StoreError::Engine("the writer has stopped".to_owned()))?
        }
        .boxed()
    }

    #[cfg(test)]
    fn get(&self, key: &str) -> Answer<'_, Option<Vec<u8>>> {
        let key = key.to_owned();
        self.read(move |connection| {
            let found = connection.query_row("SELECT value FROM records WHERE key = ?1", [key], |row| row.get(0));
            found.optional().map_err(engine)
        })
    }

    fn scan(&self, after: &str, limit: usize) -> Answer<'_, Vec<(String, Vec<u8>)>> {
        let after = after.to_owned();
        self.read(move |connection| {
            let mut statement =
                connection.prepare_cached("SELECT key, value FROM records WHERE key > ?1 ORDER BY key LIMIT ?2").map_err(engine)?;
            let rows = statement.query_map((after, limit as u64), |row| Ok((row.get(0)?, row.get(1)?))).map_err(engine)?;
            rows.collect::<Result<_, _>>().map_err(engine)
        })
    }

    fn head(&self) -> Position {
        self.head.borrow().clone()
    }

    fn read_log(&self, after: u64, limit: usize) -> Answer<'_, Vec<LogEntry>> {
        self.read(move |connection| {
            let mut statement =
                connection.prepare_cached("SELECT seq, chain, entry FROM log WHERE seq > ?1 ORDER BY seq LIMIT ?2").map_err(engine)?;
            let rows = statement
                .query_map((after, limit as u64), |row| Ok((row.get::<_, u64>(0)?, row.get::<_, String>(1)?, row.get(2)?)))
                .map_err(engine)?;
            let (mut entries, mut bytes) = (Vec::new(), 0);
            for row in rows {
                let (seq, chain, entry): (u64, String, Vec<u8>) = row.map_err(engine)?;
                bytes += entry.len();
                entries.push(LogEntry { seq, chain: parse(&chain)?, entry });
                if bytes > FEED_BATCH_BYTES {
                    break;
                }
            }
            // Without its first entry the rest is of no use to a follower.
            Ok(if entries.first().is_some_and(|first| first.seq == after.saturating_add(1)) { entries } else { vec![] })
        })
    }

    fn chain_at(&self, seq: u64) -> Answer<'_, Option<Digest>> {
        if seq == 0 {
            return async { Ok(Some(Digest::zero())) }.boxed();
        }
        // No number of an entry is greater: none is that the engine cannot hold.
        let Ok(seq) = i64::try_from(seq) else { return async { Ok(None) }.boxed() };
        self.read(move |connection| {
            let found = connection.query_row("SELECT chain FROM log WHERE seq = ?1", [seq], |row| row.get::<_, String>(0));
            found.optional().map_err(engine)?.map(|chain| parse(&chain)).transpose()
        })
    }

    fn find_request(&self, id: &RequestId) -> Answer<'_, Option<Request>> {
        let id = id.clone();
        self.read(move |connection| {
            let found = connection.query_row("SELECT fingerprint, answer FROM requests WHERE id = ?1", [id.as_str()], |row| {
                Ok((row.get::<_, String>(0)?, row.get(1)?))
            });
            let found = found.optional().map_err(engine)?;
            found.map(|(fingerprint, answer)| Ok(Request { id, fingerprint: parse(&fingerprint)?, answer })).transpose()
        })
    }
}

/// The writer's thread: takes what waits, commits it as one transaction, answers.
fn write(mut connection: Connection, jobs: &Receiver<Job>, moved: &watch::Sender<Position>) {
    while let Ok(first) = jobs.recv() {
        let mut group = vec![first];
        while group.len() < COMMIT_GROUP_MAX
            && let Ok(next) = jobs.try_recv()
        {
            group.push(next);
        }
        let (results, end) = match commit_group(&mut connection, &group) {
            Ok((results, end)) => (results, Some(end)),
            Err(error) => (vec![Err(error); group.len()], None),
        };
        if let Some(end) = end {
            moved.send_replace(end);
        }
        for (job, result) in group.into_iter().zip(results) {
            // Who asked may have gone; the commit stands.
            let _ = job.answer.send(result);
        }
    }
}

type Results = Vec<Result<Position, StoreError>>;

fn commit_group(connection: &mut Connection, group: &[Job]) -> Result<(Results, Position), StoreError> {
    let transaction = connection.transaction().map_err(engine)?;
    let mut end = head(&transaction)?;
    let mut results = Vec::with_capacity(group.len());
    for job in group {
        if job.batch.expected_seq == end.seq {
            end = append(&transaction, &end, &job.batch)?;
            results.push(Ok(end.clone()));
        } else {
            results.push(Err(StoreError::HeadMoved { head: end.seq }));
        }
    }
    transaction.commit().map_err(engine)?;
    Ok((results, end))
}

fn append(transaction: &Transaction<'_>, end: &Position, batch: &Batch) -> Result<Position, StoreError> {
    let next = Position { epoch: end.epoch.clone(), seq: end.seq + 1, chain: next_chain(&end.chain, &batch.entry) };
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
        transaction.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map(drop).map_err(engine)
    };
    run("INSERT INTO log (seq, chain, entry) VALUES (?1, ?2, ?3)", &[&next.seq, &next.chain.as_str(), &batch.entry])?;
    run("UPDATE head SET seq = ?1, chain = ?2 WHERE one = 1", &[&next.seq, &next.chain.as_str()])?;
    run("DELETE FROM log WHERE seq <= ?1", &[&next.seq.saturating_sub(LOG_ENTRIES_KEPT)])?;
    for write in &batch.writes {
        match &write.value {
            Some(value) => run("INSERT OR REPLACE INTO records (key, value) VALUES (?1, ?2)", &[&write.key, value])?,
            None => run("DELETE FROM records WHERE key = ?1", &[&write.key])?,
        }
    }
    if let Some(Request { id, fingerprint, answer }) = &batch.request {
        let oldest = batch.now_ms.saturating_sub(u64::try_from(REQUEST_IDS_KEPT.as_millis()).unwrap_or(u64::MAX));
        run("DELETE FROM requests WHERE at_ms < ?1", &[&oldest])?;
        run(
            "INSERT OR REPLACE INTO requests (id, at_ms, fingerprint, answer) VALUES (?1, ?2, ?3, ?4)",
            &[&id.as_str(), &batch.now_ms, &fingerprint.as_str(), answer],
        )?;
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::super::contract::{self, batch};
    use super::*;

    #[tokio::test]
    async fn sqlite_keeps_the_contract() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("registry.db");
        contract::meta(|| Sqlite::open(&path).expect("opens")).await;
    }

    #[test]
    fn a_database_of_another_version_is_refused_by_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("registry.db");
        drop(Sqlite::open(&path).expect("opens"));
        let connection = open(&path).expect("opens");
        connection.pragma_update(None, "user_version", 99).expect("writable");
        drop(connection);
        let refused = Sqlite::open(&path).err().expect("another version").to_string();
        assert!(refused.contains("99"), "{refused}");
    }

    /// Not a test of its own: the child of the next one. Commits until it is killed, and says what was acknowledged.
    #[test]
    fn child_that_commits_until_it_is_killed() {
        let Some(path) = std::env::var_os("SELVEDGE_TEST_DATABASE") else { return };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let store = Sqlite::open(Path::new(&path)).expect("opens");
            for seq in store.head().seq..1_000_000 {
                let at = store.commit(batch(seq, "key", Some("value"))).await.expect("commits");
                println!("acknowledged {}", at.seq);
            }
        });
    }

    #[tokio::test]
    async fn what_was_acknowledged_survives_kill_9() {
        use std::io::{BufRead as _, BufReader};
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("registry.db");
        let mut acknowledged = 0;
        for _ in 0..3 {
            let mut child = std::process::Command::new(std::env::current_exe().expect("this test"))
                .args(["--exact", "store::sqlite::tests::child_that_commits_until_it_is_killed", "--nocapture"])
                .env("SELVEDGE_TEST_DATABASE", &path)
                .stdout(std::process::Stdio::piped())
                .spawn()
                .expect("starts");
            let target = acknowledged + 20;
            let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
            let mut see = |line: std::io::Result<String>| {
                let line = line.unwrap_or_default();
                if let Some(seq) = line.strip_prefix("acknowledged ").and_then(|seq| seq.parse().ok()) {
                    acknowledged = seq;
                }
                acknowledged
            };
            while lines.next().is_some_and(|line| see(line) < target) {}
            child.kill().expect("SIGKILL");
            for line in lines {
                see(line);
            }
            child.wait().expect("ends");

            let store = Sqlite::open(&path).expect("opens again");
            assert!(acknowledged >= target, "the child committed");
            assert!(store.head().seq >= acknowledged, "head {} but {acknowledged} was acknowledged", store.head().seq);
            contract::chain_holds(&store).await;
        }
    }
}
