//! What a worker without bounds costs: how long after it has crossed its limit its answer is on the wire, with nothing else to do and with all cores
//! busy, and what its [`neighbours`] notice. For a machine that is otherwise idle: it uses all cores.

mod neighbours;

use std::io::{Read, Write};
use std::time::Instant;

use selvedge_tests::{Busy, Crossing};

use crate::load::median;
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

/// What is allocated `n` times and held, or without end where there is no `n`.
const HELD: [(&str, &str); 5] = [
    ("objects", "{ n: held.length, text: 'x'.repeat(100) + held.length }"),
    ("arrays of 1 MiB", "new Array(131072).fill(0.5)"),
    ("array of 1 GiB", "new Array(2 ** 27).fill({})"),
    ("buffers of 1 MiB", "new Uint8Array(1 << 20).fill(1)"),
    ("wasm memories of 8 MiB", "(m => (new Uint8Array(m.buffer).fill(1), m))(new WebAssembly.Memory({ initial: 128 }))"),
];

/// An answer: its status, what it says of the outcome, and when it began to come.
struct Answer {
    status: u16,
    text: String,
    ms: f64,
    began: Instant,
}

/// Milliseconds that each offender's answer comes after its limit, and what the neighbours notice.
pub(crate) fn measure(table: &mut Table) -> anyhow::Result<()> {
    let ours = Ours::start_on_all_cores()?;
    for (index, (name, body)) in ENDLESS.into_iter().enumerate() {
        let script = endless(body);
        let answers =
            (0..ROUNDS).map(|round| once(&ours, &format!("endless-{index}-{round}"), &script, "")).collect::<Result<Vec<_>, _>>()?;
        row(table, name, &answers, None);
    }
    for (index, (name, piece)) in HELD.into_iter().enumerate() {
        let script = holding(piece);
        let most = most_that_fits(&ours, &format!("fits-{index}"), &script)?;
        let (mut fits, mut answers) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            fits.push(once(&ours, &format!("held-{index}-{round}"), &script, &format!("?n={most}"))?.ms);
            answers.push(once(&ours, &format!("more-{index}-{round}"), &script, "")?);
        }
        row(table, name, &answers, Some(median(fits)));
    }
    let scripts = ENDLESS.map(|(name, body)| (name, endless(body))).into_iter().chain(HELD.map(|(name, piece)| (name, holding(piece))));
    for (index, (name, script)) in scripts.enumerate() {
        let late = (0..ROUNDS).map(|round| once_while_busy(&ours, &format!("busy-{index}-{round}"), &script));
        let longest = late.collect::<Result<Vec<_>, _>>()?.into_iter().fold(0.0, f64::max);
        table.within(&format!("{name}: the same with all cores busy"), "ms", longest, LATE_BUSY_MS);
    }
    neighbours::measure(table, &ours)
}

fn endless(body: &str) -> String {
    format!("export default {{ fetch() {{ {body} }} }}")
}

fn holding(piece: &str) -> String {
    format!(
        "export default {{ fetch(request) {{ const n = Number(new URL(request.url).searchParams.get('n') ?? Infinity); \
         const held = []; for (let i = 0; i < n; i++) held.push({piece}); return new Response('' + held.length) }} }}"
    )
}

/// `fits_ms` is how long it takes to hold nearly as much as is allowed.
fn row(table: &mut Table, name: &str, answers: &[Answer], fits_ms: Option<f64>) {
    let by = |outcome: &str| answers.iter().filter(|answer| answer.text.contains(outcome)).count();
    // Memory or CPU time, whichever comes first on this machine.
    let (outcome, begun_ms) = match fits_ms {
        Some(fits_ms) if by("exceededMemory") > by("exceededCpu") => ("exceededMemory", fits_ms),
        _ if by("exceededCpu") > 0 => ("exceededCpu", CPU_MS),
        _ => ("exception, as a whole", 0.0),
    };
    let longest = answers.iter().map(|answer| answer.ms - begun_ms).fold(0.0, f64::max);
    table.within(&format!("{name}: longest until the answer after the limit ({outcome})"), "ms", longest, LATE_MS);
}

/// The largest number of pieces that a worker can hold, within one in 64.
fn most_that_fits(ours: &Ours, name: &str, script: &str) -> anyhow::Result<u64> {
    ours.deploy(name, script)?;
    let fits = |n: u64| Ok::<_, anyhow::Error>(ask(&ours.http, name, &format!("?n={n}"))?.status == 200);
    let (mut most, mut too_many) = (0, 1);
    while fits(too_many)? {
        most = too_many;
        too_many *= 2;
    }
    while too_many - most > 1.max(most / 64) {
        let middle = most.midpoint(too_many);
        if fits(middle)? { most = middle } else { too_many = middle }
    }
    Ok(most)
}

fn once(ours: &Ours, name: &str, script: &str, query: &str) -> anyhow::Result<Answer> {
    ours.deploy(name, script)?;
    ask(&ours.http, name, query)
}

/// Milliseconds that a worker's answer comes after its limit while all cores are busy.
fn once_while_busy(ours: &Ours, name: &str, script: &str) -> anyhow::Result<f64> {
    ours.deploy(name, script)?;
    Crossing::wait_until_calm(ours.edge.pid());
    let _busy = Busy::all_cores();
    let crossing = Crossing::watch(ours.edge.pid());
    let answer = ask(&ours.http, name, "")?;
    anyhow::ensure!(answer.status >= 500, "{name}: {}", answer.text);
    Ok(answer.began.saturating_duration_since(crossing.moment()).as_secs_f64() * 1e3)
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
