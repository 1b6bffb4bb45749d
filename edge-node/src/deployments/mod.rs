//! The other path of an edge: [`follow`] the registry's feed → [`plan`] what changes → [`pull`] bundles → [`activate`] them → [`report`].
//! Purges come the same way, and take effect before anything else: a [`journal`] keeps them.
//!
//! The request path never waits for any of this. Whatever fails here leaves the last good state in place, and is reported.

pub mod limits;

mod activate;
mod contact;
mod follow;
mod join;
mod journal;
mod load;
mod plan;
mod pull;
mod purge;
mod question;
mod report;
mod spelling;
mod state;
mod unsettled;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use selvedge_origin::api::wire::WorkerReport;
use selvedge_origin::client::Client;
use selvedge_origin::feed::Position;
use selvedge_origin::registry::{NodeName, WorkerName};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::cache::purge::Purges;
use crate::peers::Peers;
use crate::request::Clock;
use crate::routes::ActiveRoutes;
use crate::tasks;
use activate::Activator;
pub use contact::Contact;
use follow::{Follow, Wanted};
pub use join::check;
pub(crate) use join::has_joined;
use join::{JoinError, Member};
use journal::Journal;
pub use journal::{fuzz as fuzz_journal, fuzz_seeds as fuzz_journal_seeds};
use load::Loader;
pub use load::Warm;
use pull::BundleStore;
pub use purge::{PurgeError, Purger};
use question::Outbox;
pub use question::{Inbox, Knows};
use report::{Board, Place};

/// What a follower is made with.
#[derive(Debug, Clone)]
pub struct FollowerConfig {
    /// The registry: `https://HOST:PORT`, or `http://` on a loopback address. Without one the node serves what it last ran.
    pub origin: Option<String>,
    /// `node.token`. Used on the first start only: the node then has a key and an identity of its own in the data folder.
    pub token_file: Option<PathBuf>,
    /// The node's data folder, which exists: key, identity, last state, bundles.
    pub data: PathBuf,
    /// The name to join under. A node that has joined keeps its name.
    pub name: NodeName,
    /// The region, as operators call it.
    pub region: String,
    /// Address for status: where this node listens.
    pub address: Option<String>,
    /// Where other nodes reach it, `IP:PORT`.
    pub peer: Option<String>,
    /// Is told who this node is, and who the others are.
    pub peers: Arc<Peers>,
}

/// Follows the registry in the background, until it is stopped or dropped.
pub struct Follower {
    board: Arc<Board>,
    purger: Purger,
    inbox: Inbox,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// Why a node cannot begin to follow. The registry being away is none of them.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The data folder cannot be used.
    #[error("{path}: {reason}")]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The node has no identity yet, and no token file was given or it cannot be used.
    #[error("joining needs the registry's node.token: {reason}")]
    Token {
        /// Why.
        reason: String,
    },
    /// The registry refused the node, or its address cannot be one.
    #[error("{origin}: {reason}")]
    Join {
        /// The registry.
        origin: String,
        /// Why.
        reason: String,
    },
}

/// How following goes, for health, metrics and logs.
#[derive(Debug, Clone, PartialEq)]
pub struct FollowerStatus {
    /// The node's name.
    pub node: NodeName,
    /// The last entry of the log that was taken; none before the first snapshot.
    pub position: Option<Position>,
    /// Whether the feed is open now.
    pub link: Link,
    /// Why the feed's next frame was refused, where it was.
    pub feed_refusal: Option<String>,
    /// The workers that do not run here what that entry wants, and why. All others do.
    pub unsettled: BTreeMap<WorkerName, WorkerReport>,
}

/// The link to the registry.
#[derive(Debug, Clone, PartialEq)]
pub enum Link {
    /// Frames arrive.
    Following,
    /// No connection; the reason of the last failure.
    Disconnected(String),
    /// The registry removed this node: it goes on with what it has, and follows no more.
    Removed(String),
}

impl Follower {
    /// When the registry was heard last.
    pub fn contact(&self) -> Arc<Contact> {
        self.board.contact.clone()
    }

    /// Activates the last state from the data folder, without the registry, and then follows in the background. Returns when the last state is
    /// active: the node may answer requests then. A node that has never joined joins first; where the registry is away it goes on
    /// trying in the background, where the registry refuses it this fails. What was purged before is in `purges` when this returns.
    pub async fn start(
        config: FollowerConfig,
        supervisor: impl Warm,
        routes: Arc<ActiveRoutes>,
        purges: Arc<Purges>,
    ) -> Result<Self, FollowError> {
        let supervisor: Arc<dyn Warm> = Arc::new(supervisor);
        let files = config.clone();
        let Opened { saved, store, member, journal } = blocking(&config, move || open(&files, purges)).await?;
        let member = match (member, &config.origin) {
            (Some(member), _) => Some(member),
            (None, None) => None,
            (None, Some(origin)) => match join::join(&config, origin, config.name.clone()).await {
                Ok(member) => Some(member),
                Err(JoinError::Final(error)) => return Err(error),
                Err(JoinError::Away(error)) => {
                    tracing::warn!(%error, "cannot join yet: trying on");
                    None
                }
            },
        };
        if let Some(member) = &member {
            config.peers.joined(&member.identity);
        }
        config.peers.update(&saved.desired.peers);
        let board = Arc::new(Board::new(config.name.clone()));
        let first = Wanted { position: saved.position.clone(), desired: saved.desired.clone() };
        let (wanted, receiver) = watch::channel(first);
        let client = match (&member, &config.origin) {
            (Some(member), Some(origin)) => Some(member.client(origin).map_err(|error| refused_address(origin, error))?),
            _ => None,
        };
        let (inbox, outbox) = question::channel();
        let origin = config.origin.clone();
        let parts = Parts { config, supervisor, routes, store, board, wanted, receiver, journal, purger: Purger::default(), inbox, outbox };
        let (board, purger, inbox) = (parts.board.clone(), parts.purger.clone(), parts.inbox.clone());
        let running = match (member, origin) {
            // Never joined: nothing can be restored, and everything else has to wait.
            (None, Some(origin)) => vec![tasks::owned("join the registry", join_later(parts, origin))],
            (member, _) => {
                if let Some(member) = &member {
                    parts.board.node(member.identity.name());
                }
                let activator = parts.restore(saved, member.as_ref(), client.clone()).await;
                match (member, client) {
                    (Some(member), Some(client)) => {
                        parts.follow(&member, client, activator).into_iter().map(|(what, task)| tasks::owned(what, task)).collect()
                    }
                    _ => {
                        parts.board.link(Link::Disconnected("no registry is configured".into()));
                        Vec::new()
                    }
                }
            }
        };
        Ok(Self { board, purger, inbox, _tasks: running })
    }

    /// How it goes now.
    pub fn status(&self) -> Arc<FollowerStatus> {
        Arc::new(self.board.status())
    }

    /// How workers purge.
    pub fn purger(&self) -> Purger {
        self.purger.clone()
    }

    /// Where operators' questions arrive.
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// Stops following. What is active stays active.
    pub async fn stop(self) {
        for task in self._tasks {
            task.abort();
            // An aborted task ends with an error, which says that it was aborted.
            let _ = task.await;
        }
    }
}

/// What following needs, beside a node's identity.
struct Parts {
    config: FollowerConfig,
    supervisor: Arc<dyn Warm>,
    routes: Arc<ActiveRoutes>,
    store: Arc<BundleStore>,
    board: Arc<Board>,
    wanted: watch::Sender<Wanted>,
    receiver: watch::Receiver<Wanted>,
    journal: Journal,
    purger: Purger,
    inbox: Inbox,
    outbox: Outbox,
}

impl Parts {
    /// Runs what was saved.
    async fn restore(&self, saved: state::Saved, member: Option<&Member>, client: Option<Client>) -> Activator {
        let key = member.map(|member| member.signing_key);
        let loader = Arc::new(Loader { store: self.store.clone(), client, key, supervisor: self.supervisor.clone() });
        let data = self.config.data.clone();
        Activator::restore(saved, self.receiver.clone(), loader, self.routes.clone(), self.board.clone(), data).await
    }

    /// Everything that goes on while the node follows, each with its name.
    fn follow(self, member: &Member, client: Client, activator: Activator) -> [(&'static str, BoxFuture<'static, ()>); 5] {
        let place = Place::of(&self.config);
        let Self { config, board, journal, routes, wanted, purger, inbox, outbox, .. } = self;
        let (name, key) = (member.identity.name().clone(), member.signing_key);
        let follow = Follow::new(client.clone(), name, key, wanted, (board.clone(), config.peers), (journal, routes), inbox);
        purger.connected(client.clone(), board.watch_applied());
        [
            ("activate", activator.run().boxed()),
            ("follow the feed", follow.run().boxed()),
            ("acknowledge", report::acknowledge(client.clone(), board.clone()).boxed()),
            ("answer questions", question::answer(client.clone(), outbox).boxed()),
            ("report", report::report(client, board, place).boxed()),
        ]
    }
}

/// Joins as soon as the registry is there, then follows.
async fn join_later(parts: Parts, origin: String) {
    let Parts { config, board, .. } = &parts;
    let mut wait = limits::RECONNECT_MIN;
    let (member, client) = loop {
        tokio::time::sleep(wait.mul_f64(0.5 + crate::chance::draw() / 2.0)).await;
        wait = (wait * 2).min(limits::RECONNECT_MAX);
        let reason = match join::join(config, &origin, config.name.clone()).await {
            Ok(member) => match member.client(&origin) {
                Ok(client) => break (member, client),
                Err(error) => error.to_string(),
            },
            Err(JoinError::Away(error)) => error.to_string(),
            Err(JoinError::Final(error)) => {
                tracing::error!(%error, "the node cannot join the registry");
                wait = limits::REFUSED_WAIT;
                error.to_string()
            }
        };
        board.link(Link::Disconnected(reason));
    };
    board.node(member.identity.name());
    config.peers.joined(&member.identity);
    let activator = parts.restore(state::Saved::default(), Some(&member), Some(client.clone())).await;
    futures::future::join_all(parts.follow(&member, client, activator).map(|(_, task)| task)).await;
}

/// What a start reads from the data folder.
struct Opened {
    saved: state::Saved,
    store: Arc<BundleStore>,
    member: Option<Member>,
    journal: Journal,
}

fn open(config: &FollowerConfig, purges: Arc<Purges>) -> Result<Opened, FollowError> {
    let data = |path: PathBuf| move |error: std::io::Error| FollowError::Data { path, reason: error.to_string() };
    let saved = state::load(&config.data).map_err(data(config.data.join(state::FILE)))?;
    let bundles = config.data.join("bundles");
    let store = BundleStore::open(bundles.clone()).map_err(data(bundles))?;
    let journal = Journal::open(&config.data, purges, Clock::default().now()).map_err(data(config.data.clone()))?;
    Ok(Opened { saved, store: Arc::new(store), member: Member::load(config)?, journal })
}

async fn blocking<T: Send + 'static>(
    config: &FollowerConfig,
    work: impl FnOnce() -> Result<T, FollowError> + Send + 'static,
) -> Result<T, FollowError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| FollowError::Data { path: config.data.clone(), reason: error.to_string() })?
}

fn refused_address(origin: &str, error: selvedge_origin::client::ClientError) -> FollowError {
    FollowError::Join { origin: origin.to_owned(), reason: error.to_string() }
}
