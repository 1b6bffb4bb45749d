//! What a node's report costs the registry, in bytes that it allocates and bytes on the wire: it must not grow with the workers that run as they should. A binary of its
//! own, because it counts what the whole process allocates.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use selvedge_origin::api::wire::{NodeReport, NodeState, WorkerReport, WorkerState};
use selvedge_origin::feed::Position;
use selvedge_origin::registry::{Change, Deployment, Digest, Epoch, Fleet, NodeName, Share, State, VersionId, WorkerName};

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: does what the system's allocator does, which keeps the contract; the sum is a number of this thread and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATED.try_with(|bytes| bytes.set(bytes.get() + layout.size() as u64));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A registry's state with workers that take traffic, and the position after it.
fn with(workers: usize) -> (State, Vec<WorkerName>, Position) {
    let (mut state, mut seq) = (State::default(), 0);
    let names: Vec<WorkerName> = (0..workers).map(|number| format!("w{number}").parse().unwrap()).collect();
    for worker in &names {
        let id = VersionId::generate();
        let record = serde_json::json!({
            "worker": worker, "id": id, "number": 1, "bundle": "0".repeat(64), "signature": "0".repeat(128), "cordon": "shared", "vars": {},
            "compatibility_date": "2026-01-01", "compatibility_flags": [], "cpu_ms": null, "subrequests_max": null, "created_ms": 0, "message": null,
        });
        let version = serde_json::from_value(record).unwrap();
        let shares = vec![Share { version: id.clone(), percentage: 100.0 }];
        let deployment = Deployment { id: VersionId::generate(), versions: shares, created_ms: 0, message: None };
        seq += 2;
        state.apply(seq - 1, &Change::VersionCreated(Box::new(version)));
        state.apply(seq, &Change::Promoted { worker: worker.clone(), deployment, versions: vec![] });
    }
    (state, names, Position { epoch: Epoch::generate(), seq, chain: Digest::zero() })
}

/// What a node says of workers that do not run as they should.
fn report(state: &State, position: &Position, unsettled: &[WorkerName]) -> NodeReport {
    let line = |worker: &WorkerName| WorkerReport {
        worker: worker.clone(),
        deployment: state.worker(worker).unwrap().deployment().unwrap().id.clone(),
        state: WorkerState::Activating,
        active: Vec::new(),
    };
    NodeReport {
        since: None,
        position: Some(position.clone()),
        region: "here".into(),
        address: None,
        peer: None,
        build: "test".into(),
        feed_refusal: None,
        last_refusal: None,
        unsettled: unsettled.iter().map(line).collect(),
        settled: Vec::new(),
    }
}

/// Bytes allocated for and bytes of a report that says that one worker has become active, where all others run as they should; then of a steady one.
fn cost(workers: usize) -> [u64; 4] {
    let (state, names, position) = with(workers);
    let node: NodeName = "edge-1".parse().unwrap();
    let mut fleet = Fleet::default();
    let first = fleet.reported(&state, &node, report(&state, &position, &names[..1]), 0);
    let settled = NodeReport { since: first.mark, settled: vec![names[0].clone()], ..report(&state, &position, &[]) };
    let steady = |mark| NodeReport { since: mark, ..report(&state, &position, &[]) };
    let mut count = |report: NodeReport| {
        let bytes = serde_json::to_vec(&report).unwrap().len() as u64;
        let before = ALLOCATED.get();
        let taken = fleet.reported(&state, &node, report, 1);
        (ALLOCATED.get() - before, bytes, taken.mark)
    };
    let (settling, settling_bytes, mark) = count(settled);
    let (steady, steady_bytes, _) = count(steady(mark));
    [settling, settling_bytes, steady, steady_bytes]
}

#[test]
fn a_report_costs_what_it_says_and_not_what_the_node_runs() {
    let [few, many] = [cost(2), cost(2_000)];
    println!(
        "bytes allocated for and bytes of a report that settles a worker, then of a steady one: {few:?} with 2 workers, {many:?} with 2,000"
    );
    let is_near = |few: u64, many: u64| many <= few + few / 10 + 64;
    assert!(few.iter().zip(many).all(|(few, many)| is_near(*few, many)), "with 2 workers {few:?}, with 2,000 {many:?}");
    assert!(many.iter().all(|bytes| *bytes <= 2_048), "{many:?}");
}

#[test]
fn ten_thousand_workers_on_a_node_are_told_in_as_many_lines() {
    const WORKERS: usize = 10_000;
    let (state, names, position) = with(WORKERS);
    let node: NodeName = "edge-1".parse().unwrap();
    let mut fleet = Fleet::default();
    let key = selvedge_origin::keys::SigningKey::generate().unwrap().public();
    let mut joined = state.clone();
    joined.apply(position.seq + 1, &Change::NodeJoined { node: node.clone(), region: "here".into(), address: None, peer: None, key });
    let before = ALLOCATED.get();
    let (mut mark, mut lines) = (None, 0);
    for part in names.chunks(1_000) {
        let last = part.last() == names.last();
        let said = NodeReport { since: mark, position: last.then(|| position.clone()), ..report(&state, &position, part) };
        lines += said.unsettled.len();
        mark = fleet.reported(&joined, &node, said, 0).mark;
    }
    for worker in &names {
        let settled = NodeReport { since: mark, settled: vec![worker.clone()], ..report(&state, &position, &[]) };
        lines += 1;
        mark = fleet.reported(&joined, &node, settled, 1).mark;
    }
    let bytes = ALLOCATED.get() - before;
    assert_eq!(lines, 2 * WORKERS);
    assert!(bytes < 4_096 * lines as u64, "{bytes} bytes allocated for {lines} lines");
    let nodes = fleet.worker_nodes(&joined, &names[5_000], 1).unwrap();
    assert!(nodes.settled && nodes.nodes[0].state == NodeState::Active);
}
