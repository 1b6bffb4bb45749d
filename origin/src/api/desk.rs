//! Who can be asked, and who has been: the seats of the feeds that are open, and the questions that wait for answers. In memory only, and within bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::Instant;

use super::wire::{Ask, NodeTold, Question, Told, ToldState};
use crate::limits::{ANSWERS_BYTES_MAX, QUESTIONS_AT_ONCE_MAX, QUESTIONS_WAITING_MAX};
use crate::registry::{NodeName, RequestId};

/// What a node is told in the place of its answer where all answers together are too large.
const TOO_MUCH: &str = "the answers of all nodes are too large together: ask one node (--node)";

/// Hands questions to feeds, and answers to those who ask.
#[derive(Debug)]
pub(super) struct Desk {
    desk: Mutex<Table>,
    room: Semaphore,
}

#[derive(Debug, Default)]
struct Table {
    /// Feeds that are open, newest last; two for a moment where a node comes back before its old connection is known to be dead.
    seats: BTreeMap<NodeName, Vec<Place>>,
    last_seat: u64,
    questions: BTreeMap<RequestId, Open>,
}

#[derive(Debug)]
struct Place {
    number: u64,
    /// None: the node runs a release that takes no questions.
    questions: Option<mpsc::Sender<Bytes>>,
}

/// A question that waits for answers.
#[derive(Debug)]
struct Open {
    awaited: BTreeSet<NodeName>,
    bytes_left: usize,
    answers: mpsc::Sender<(NodeName, Told)>,
}

/// A node's place while its feed is open.
#[derive(Debug)]
pub(super) struct Seat {
    desk: Arc<Desk>,
    node: NodeName,
    number: u64,
    questions: Option<mpsc::Receiver<Bytes>>,
}

/// One who asks. Dropping it takes the question back.
struct Asking<'a> {
    desk: &'a Desk,
    id: RequestId,
    answers: mpsc::Receiver<(NodeName, Told)>,
    _room: SemaphorePermit<'a>,
}

impl Default for Desk {
    fn default() -> Self {
        Self { desk: Mutex::default(), room: Semaphore::new(QUESTIONS_AT_ONCE_MAX) }
    }
}

impl Desk {
    /// A feed has been opened; `takes` says whether the node takes questions.
    pub(super) fn seat(self: &Arc<Self>, node: &NodeName, takes: bool) -> Seat {
        let (sender, receiver) = mpsc::channel(QUESTIONS_WAITING_MAX);
        let mut table = self.desk.lock();
        table.last_seat += 1;
        let number = table.last_seat;
        table.seats.entry(node.clone()).or_default().push(Place { number, questions: takes.then_some(sender) });
        Seat { desk: self.clone(), node: node.clone(), number, questions: takes.then_some(receiver) }
    }

    /// Asks nodes, and waits for their answers; none where as many questions are open as may. Cancel-safe: the question goes with the future.
    pub(super) async fn ask(
        &self,
        ask: &Ask,
        nodes: Vec<(NodeName, String)>,
        wait: Duration,
    ) -> Result<Option<Vec<NodeTold>>, serde_json::Error> {
        let Ok(room) = self.room.try_acquire() else { return Ok(None) };
        let began = Instant::now();
        let question = Question { id: RequestId::generate(), ask: Some(ask.clone()) };
        let line: Bytes = serde_json::to_vec(&question)?.into();
        let (mut asking, states, mut awaited) = self.open(question.id, &line, &nodes, room);
        let mut told = BTreeMap::new();
        while awaited > 0
            && let Ok(Some((node, answer))) = tokio::time::timeout_at(began + wait, asking.answers.recv()).await
        {
            told.insert(node, (answer, u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)));
            awaited -= 1;
        }
        let node = |(node, region): (NodeName, String)| match told.remove(&node) {
            Some((told, ms)) => NodeTold { node, region, state: ToldState::Answered, ms: Some(ms), told: Some(told) },
            None => {
                let state = states.get(&node).copied().unwrap_or(ToldState::Away);
                NodeTold { node, region, state, ms: None, told: None }
            }
        };
        Ok(Some(nodes.into_iter().map(node).collect()))
    }

    /// Hands a question to every node that can be asked. Gives how many took it, too.
    fn open<'a>(
        &'a self,
        id: RequestId,
        line: &Bytes,
        nodes: &[(NodeName, String)],
        room: SemaphorePermit<'a>,
    ) -> (Asking<'a>, BTreeMap<NodeName, ToldState>, usize) {
        let mut table = self.desk.lock();
        let (mut states, mut awaited) = (BTreeMap::new(), BTreeSet::new());
        for (node, _) in nodes {
            let state = match table.seats.get(node).and_then(|places| places.last()) {
                None => ToldState::Away,
                Some(Place { questions: None, .. }) => ToldState::Unable,
                Some(Place { questions: Some(questions), .. }) => {
                    // One whose feed does not move is silent.
                    if questions.try_send(line.clone()).is_ok() {
                        awaited.insert(node.clone());
                    }
                    ToldState::Silent
                }
            };
            states.insert(node.clone(), state);
        }
        let count = awaited.len();
        let (sender, answers) = mpsc::channel(count.max(1));
        table.questions.insert(id.clone(), Open { awaited, bytes_left: ANSWERS_BYTES_MAX, answers: sender });
        (Asking { desk: self, id, answers, _room: room }, states, count)
    }

    /// A node answers. One that is not asked, or not any more, is not heard.
    pub(super) fn answered(&self, node: &NodeName, question: &RequestId, told: Told, bytes: usize) {
        let mut table = self.desk.lock();
        let Some(open) = table.questions.get_mut(question).filter(|open| open.awaited.contains(node)) else { return };
        open.awaited.remove(node);
        let left = open.bytes_left.checked_sub(bytes);
        open.bytes_left = left.unwrap_or(open.bytes_left);
        let told = if left.is_some() { told } else { Told::Failed(TOO_MUCH.to_owned()) };
        // There is room for one answer of each node that is awaited.
        let _ = open.answers.try_send((node.clone(), told));
    }
}

impl Seat {
    /// The next question for the node, as JSON. Cancel-safe.
    pub(super) async fn next(&mut self) -> Bytes {
        if let Some(questions) = &mut self.questions
            && let Some(question) = questions.recv().await
        {
            return question;
        }
        std::future::pending().await
    }

    /// One that is here already.
    pub(super) fn here(&mut self) -> Option<Bytes> {
        self.questions.as_mut()?.try_recv().ok()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.desk.desk.lock();
        if let Some(places) = table.seats.get_mut(&self.node) {
            places.retain(|place| place.number != self.number);
            if places.is_empty() {
                table.seats.remove(&self.node);
            }
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.desk.desk.lock().questions.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    fn node(name: &str) -> NodeName {
        name.parse().expect("a name")
    }

    fn nodes(names: &[&str]) -> Vec<(NodeName, String)> {
        names.iter().map(|name| (node(name), "here".to_owned())).collect()
    }

    fn id(line: &Bytes) -> RequestId {
        serde_json::from_slice::<Question>(line).expect("a question").id
    }

    fn states(told: &[NodeTold]) -> Vec<ToldState> {
        told.iter().map(|node| node.state).collect()
    }

    #[tokio::test]
    async fn each_node_is_asked_once_and_named_whatever_it_does() {
        let desk = Arc::new(Desk::default());
        let (mut good, _mute, _old) = (desk.seat(&node("a"), true), desk.seat(&node("b"), true), desk.seat(&node("c"), false));
        let (told, ()) = tokio::join!(desk.ask(&Ask::Upstreams {}, nodes(&["a", "b", "c", "d"]), SOON), async {
            let id = id(&good.next().await);
            // Not asked, twice, and another question.
            desk.answered(&node("d"), &id, Told::Failed("d".into()), 1);
            desk.answered(&node("a"), &RequestId::generate(), Told::Failed("other".into()), 1);
            desk.answered(&node("a"), &id, Told::Failed("a".into()), 1);
            desk.answered(&node("a"), &id, Told::Failed("again".into()), 1);
        });
        let told = told.expect("JSON").expect("room");
        assert_eq!(states(&told), [ToldState::Answered, ToldState::Silent, ToldState::Unable, ToldState::Away]);
        assert_eq!(told[0].told, Some(Told::Failed("a".into())));
        assert!(desk.desk.lock().questions.is_empty(), "the question went with who asked");
        drop(good);
        let told = desk.ask(&Ask::Upstreams {}, nodes(&["a"]), SOON).await.expect("JSON").expect("room");
        assert_eq!(states(&told), [ToldState::Away]);
    }

    #[tokio::test]
    async fn questions_and_the_bytes_of_answers_are_bounded() {
        let desk = Arc::new(Desk::default());
        let (mut a, mut b) = (desk.seat(&node("a"), true), desk.seat(&node("b"), true));
        let (told, ()) = tokio::join!(desk.ask(&Ask::Upstreams {}, nodes(&["a", "b"]), SOON), async {
            let id = id(&a.next().await);
            desk.answered(&node("a"), &id, Told::Failed("small".into()), ANSWERS_BYTES_MAX);
            desk.answered(&node("b"), &id, Told::Failed("large".into()), 1);
        });
        let told = told.expect("JSON").expect("room");
        assert_eq!(told[0].told, Some(Told::Failed("small".into())));
        assert_eq!(told[1].told, Some(Told::Failed(TOO_MUCH.into())));
        while b.here().is_some() {}
        let mut many: Vec<_> = (0..QUESTIONS_AT_ONCE_MAX)
            .map(|_| Box::pin(async { desk.ask(&Ask::Upstreams {}, nodes(&["a"]), Duration::from_secs(60)).await }))
            .collect();
        for asking in &mut many {
            assert!(futures::poll!(asking).is_pending());
        }
        assert!(desk.ask(&Ask::Upstreams {}, nodes(&["a"]), SOON).await.expect("JSON").is_none(), "no room");
        drop(many);
        // None of them was taken from the queue, which is full: the node is silent at once.
        let told = tokio::time::timeout(SOON, desk.ask(&Ask::Upstreams {}, nodes(&["a"]), Duration::from_secs(60))).await;
        assert_eq!(states(&told.expect("at once").expect("JSON").expect("room")), [ToldState::Silent]);
    }
}
