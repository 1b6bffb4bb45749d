//! What a worker without bounds costs: how long after it has crossed its limit its answer is on the wire, with nothing else to do and with all cores
//! busy, and what its [`neighbours`] notice. For a machine that is otherwise idle: it uses all cores.

mod neighbours;

use std::io::{Read, Write};
use std::time::Instant;

use selvedge_tests::{Busy, Crossing, Reach};

use crate::ours::Ours;
use crate::table::Table;

/// Runs of each offender, each as a worker of its own: strikes would move it, and disable it in the end.
const ROUNDS: usize = 5;
/// The CPU limit of an invocation.
const CPU_MS: f64 = 200.0;
/// How late an answer may be, in milliseconds, on an idle machine and on a busy one.
const LATE_MS: f64 = 100.0;
const LATE_BUSY_MS: f64 = 500.0;

/// What never ends by itself: its name, and the body of its handler.
const ENDLESS: [(&str, &str); 5] = [
    ("an exception", "throw new Error('on purpose')"),
    ("a loop", "while (true) {}"),
    ("a builtin that cannot be terminated", "Array.prototype.indexOf.call({ length: 2 ** 53 - 1 }, 1)"),
    ("getters that loop", "throw { get message() { while (true) {} }, get stack() { while (true) {} }, toString() { while (true) {} } }"),
    ("recursion", "const f = () => { try { return f() } catch { return f() } }; f()"),
];

/// What is allocated and held, again and again.
const HELD: [(&str, &str); 5] = [
    ("objects", "{ n: held.length, text: 'x'.repeat(100) + held.length }"),
    ("arrays of 1 MiB", "new Array(131072).fill(0.5)"),
    ("array of 1 GiB", "new Array(2 ** 27).fill({})"),
    ("buffers of 1 MiB", "new Uint8Array(1 << 20).fill(1)"),
    ("wasm memories of 8 MiB", "(m => (new Uint8Array(m.buffer).fill(1), m))(new WebAssembly.Memory({ initial: 128 }))"),
];

/// What else the machine does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Busy,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "all cores busy",
        }
    }
}

/// An answer: its status, what it says of the outcome, and when it began to come.
struct Answer {
    status: u16,
    text: String,
    ms: f64,
    began: Instant,
}

/// How late each offender's answer is, and what the neighbours notice.
pub(crate) fn measure(table: &mut Table) -> anyhow::Result<()> {
    let ours = Ours::start_on_all_cores()?;
    let scripts = ENDLESS.map(|(name, body)| (name, endless(body))).into_iter().chain(HELD.map(|(name, piece)| (name, holding(piece))));
    for (index, (name, script)) in scripts.enumerate() {
        for (state, bound) in [(State::Idle, LATE_MS), (State::Busy, LATE_BUSY_MS)] {
            let late = (0..ROUNDS).map(|round| late(&ours, &format!("{}-{index}-{round}", state.word()), &script, state));
            let longest = late.collect::<Result<Vec<_>, _>>()?.into_iter().fold(0.0, f64::max);
            table.within(&format!("{name}: longest until the answer after the limit, {}", state.name()), "ms", longest, bound);
        }
    }
    neighbours::measure(table, &ours)
}

fn endless(body: &str) -> String {
    format!("export default {{ fetch() {{ {body} }} }}")
}

fn holding(piece: &str) -> String {
    endless(&format!("const held = []; while (true) held.push({piece})"))
}

/// Milliseconds that a worker's answer comes after it has crossed its limit, as the kernel sees that; after it was asked, where it crosses none.
fn late(ours: &Ours, name: &str, script: &str, state: State) -> anyhow::Result<f64> {
    ours.deploy(name, script)?;
    Crossing::wait_until_calm(ours.edge.pid());
    let _busy = (state == State::Busy).then(Busy::all_cores);
    let crossing = Crossing::watch(ours.edge.pid(), Reach::default());
    let answer = ask(&ours.http, name, "")?;
    anyhow::ensure!(answer.status >= 500, "{name}: {}", answer.text);
    Ok(answer.began.saturating_duration_since(crossing.moment(&answer.text)).as_secs_f64() * 1e3)
}

/// One request on a connection of its own.
fn ask(address: &str, name: &str, query: &str) -> anyhow::Result<Answer> {
    send(address, name, &format!("GET /{query} HTTP/1.1\r\nHost: {name}.test\r\nConnection: close\r\n\r\n"))
}

fn send(address: &str, name: &str, request: &str) -> anyhow::Result<Answer> {
    let mut socket = std::net::TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let start = Instant::now();
    socket.write_all(request.as_bytes())?;
    let mut answer = vec![0; 12];
    socket.read_exact(&mut answer)?;
    let began = Instant::now();
    let ms = began.duration_since(start).as_secs_f64() * 1e3;
    socket.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.get(9..12).and_then(|digits| digits.parse().ok()).ok_or_else(|| anyhow::anyhow!("{name}: {text}"))?;
    Ok(Answer { status, text, ms, began })
}
