//! Questions of the registry's operators: from the feed to whoever knows, and the answers back, under the node's own identity.

use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;
use selvedge_origin::api::wire::{Ask, NodeAnswer, Question, Told};
use selvedge_origin::client::Client;
use tokio::sync::mpsc;

use super::limits;

/// Knows what this node is asked. Answering changes nothing.
pub trait Knows: Send + Sync + 'static {
    /// What it can tell. Bounded in time by [`limits::QUESTION_TIMEOUT`].
    fn tell<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Told>;
}

/// Where questions are put, and where whoever knows is made known. Cheap to clone.
#[derive(Clone)]
pub struct Inbox {
    questions: mpsc::Sender<Question>,
    knows: Arc<OnceLock<Arc<dyn Knows>>>,
}

/// The other end.
pub(super) struct Outbox {
    questions: mpsc::Receiver<Question>,
    knows: Arc<OnceLock<Arc<dyn Knows>>>,
}

/// Both ends.
pub(super) fn channel() -> (Inbox, Outbox) {
    let (sender, questions) = mpsc::channel(limits::QUESTIONS_WAITING_MAX);
    let knows = Arc::default();
    (Inbox { questions: sender, knows: Arc::clone(&knows) }, Outbox { questions, knows })
}

impl Inbox {
    /// Puts a question in its turn. One too many is not answered: following does not wait for it.
    pub(super) fn put(&self, question: Question) {
        if self.questions.try_send(question).is_err() {
            tracing::debug!("a question of the registry is not answered: too many wait");
        }
    }

    /// Whom to ask; the first counts. Until then the node says that it starts.
    pub fn ask(&self, knows: Arc<dyn Knows>) {
        let _ = self.knows.set(knows);
    }
}

/// Answers one question after the other, until the inbox is gone.
pub(super) async fn answer(client: Client, mut outbox: Outbox) {
    while let Some(Question { id, ask }) = outbox.questions.recv().await {
        let told = match (&ask, outbox.knows.get()) {
            (None, _) => Told::Failed("this node runs a release that does not know the question".to_owned()),
            (Some(_), None) => Told::Failed("the node is starting".to_owned()),
            (Some(ask), Some(knows)) => tokio::time::timeout(limits::QUESTION_TIMEOUT, knows.tell(ask))
                .await
                .unwrap_or_else(|_| Told::Failed("the answer took too long".to_owned())),
        };
        if let Err(error) = client.answer(&NodeAnswer { question: id, told }).await {
            tracing::debug!(%error, "answer a question of the registry");
        }
    }
}
