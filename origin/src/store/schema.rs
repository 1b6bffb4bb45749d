//! The tables of the embedded engine, and their version.

use rusqlite::{Connection, OptionalExtension as _};

use super::StoreError;
use crate::feed::Position;
use crate::registry::{Digest, Epoch};

/// The version of the tables that this build reads and writes.
const SCHEMA: u32 = 1;

/// Opens a database as this build wants it: durable when a commit returns (`synchronous=FULL` syncs the log at each commit).
pub(super) fn open(path: &std::path::Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path).map_err(engine)?;
    connection.busy_timeout(crate::limits::DATABASE_WAIT).map_err(engine)?;
    connection.pragma_update(None, "journal_mode", "wal").map_err(engine)?;
    connection.pragma_update(None, "synchronous", "full").map_err(engine)?;
    connection.pragma_update(None, "trusted_schema", "off").map_err(engine)?;
    Ok(connection)
}

/// Makes the tables on first use; refuses those of another version. Gives the end of the log.
pub(super) fn prepare(connection: &mut Connection) -> Result<Position, StoreError> {
    let transaction = connection.transaction().map_err(engine)?;
    let version: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(engine)?;
    match version {
        SCHEMA => {}
        0 => {
            transaction.execute_batch(TABLES).map_err(engine)?;
            transaction
                .execute(
                    "INSERT INTO head (one, epoch, seq, chain) VALUES (1, ?1, 0, ?2)",
                    (Epoch::generate().as_str(), Digest::zero().as_str()),
                )
                .map_err(engine)?;
            transaction.pragma_update(None, "user_version", SCHEMA).map_err(engine)?;
        }
        other => return Err(StoreError::Engine(format!("the database has tables of version {other}, this build knows {SCHEMA}"))),
    }
    let head = head(&transaction)?;
    transaction.commit().map_err(engine)?;
    Ok(head)
}

const TABLES: &str = "
    CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), epoch TEXT NOT NULL, seq INTEGER NOT NULL, chain TEXT NOT NULL);
    CREATE TABLE log (seq INTEGER PRIMARY KEY, chain TEXT NOT NULL, entry BLOB NOT NULL);
    CREATE TABLE records (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE requests (id TEXT PRIMARY KEY, at_ms INTEGER NOT NULL, fingerprint TEXT NOT NULL, answer BLOB NOT NULL) WITHOUT ROWID;
    CREATE INDEX requests_by_age ON requests (at_ms);
";

/// The end of the log.
pub(super) fn head(connection: &Connection) -> Result<Position, StoreError> {
    let row = connection
        .query_row("SELECT epoch, seq, chain FROM head WHERE one = 1", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?, row.get::<_, String>(2)?))
        })
        .optional()
        .map_err(engine)?;
    let (epoch, seq, chain) = row.ok_or_else(|| StoreError::Engine("the database has no head".to_owned()))?;
    Ok(Position { epoch: parse(&epoch)?, seq, chain: parse(&chain)? })
}

pub(super) fn parse<T: std::str::FromStr<Err = crate::registry::BadName>>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|error: crate::registry::BadName| StoreError::Engine(format!("the database holds nonsense: {error}")))
}

pub(super) fn engine(error: rusqlite::Error) -> StoreError {
    StoreError::Engine(error.to_string())
}
