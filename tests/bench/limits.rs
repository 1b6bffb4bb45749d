//! What a worker without bounds costs: how long after it has crossed its limit its answer is on the wire, and what its neighbours
//! notice of one that computes to its full legal limit again and again. For a machine that is otherwise idle: it uses all cores.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::load::median;
use crate::ours::Ours;
use crate::table::Table;

/// Runs of each offender, each as a worker of its own: strikes would move it, and disable it in the end.
const ROUNDS: usize = 5;
/// The CPU limit of an invocation.
const CPU_MS: f64 = 200.0;
/// How long the neighbours are watched.
const WATCHED: Duration = Duration::from_secs(8);
/// The pace of a neighbour's requests.
const PACE: Duration = Duration::from_millis(2);

/// What never ends by itself: its name, and the body of its handler.
const ENDLESS: [(&str, &str); 4] = [
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
}

/// Milliseconds that each offender's answer comes after its limit, and the neighbours' p99.
pub(crate) fn measure(table: &mut Table) -> anyhow::Result<()> {
    let ours = Ours::start_on_all_cores()?;
    for (index, (name, body)) in ENDLESS.into_iter().enumerate() {
        let script = format!("export default {{ fetch() {{ {body} }} }}");
        let answers =
            (0..ROUNDS).map(|round| once(&ours, &format!("endless-{index}-{round}"), &script, "")).collect::<Result<Vec<_>, _>>()?;
        row(table, name, &answers, None);
    }
    for (index, (name, piece)) in HELD.into_iter().enumerate() {
        let script = format!(
            "export default {{ fetch(request) {{ const n = Number(new URL(request.url).searchParams.get('n') ?? Infinity); \
             const held = []; for (let i = 0; i < n; i++) held.push({piece}); return new Response('' + held.length) }} }}"
        );
        let most = most_that_fits(&ours, &format!("fits-{index}"), &script)?;
        let (mut fits, mut answers) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            fits.push(once(&ours, &format!("held-{index}-{round}"), &script, &format!("?n={most}"))?.ms);
            answers.push(once(&ours, &format!("more-{index}-{round}"), &script, "")?);
        }
        row(table, name, &answers, Some(median(fits)));
    }
    neighbours(table, &ours)
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
    let past = answers.iter().map(|answer| answer.ms - begun_ms).collect();
    table.alone(&format!("{name}: answer after the limit ({outcome})"), "ms", median(past), "100");
}

/// The largest number of pieces, within an eighth, that a worker can hold.
fn most_that_fits(ours: &Ours, name: &str, script: &str) -> anyhow::Result<u64> {
    ours.deploy(name, script)?;
    let (mut most, mut next) = (0, 1);
    while ask(&ours.http, name, &format!("?n={next}"))?.status == 200 {
        most = next;
        next = next * 9 / 8 + 1;
    }
    Ok(most)
}

fn once(ours: &Ours, name: &str, script: &str, query: &str) -> anyhow::Result<Answer> {
    ours.deploy(name, script)?;
    ask(&ours.http, name, query)
}

/// One request on a connection of its own.
fn ask(address: &str, name: &str, query: &str) -> anyhow::Result<Answer> {
    let mut socket = std::net::TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let start = Instant::now();
    socket.write_all(format!("GET /{query} HTTP/1.1\r\nHost: {name}.test\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = vec![0; 12];
    socket.read_exact(&mut answer)?;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    socket.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.get(9..12).and_then(|digits| digits.parse().ok()).ok_or_else(|| anyhow::anyhow!("{name}: {text}"))?;
    Ok(Answer { status, text, ms })
}

fn neighbours(table: &mut Table, ours: &Ours) -> anyhow::Result<()> {
    let compute = "export default { fetch(request) { let x = 0; for (let i = 0, n = +new URL(request.url).searchParams.get('n'); i < n; i++) \
                   x = (x + i * i) | 0; return new Response('' + x) } }";
    let hello = "export default { fetch: () => new Response('hello') }";
    ours.deploy_in("computes", compute, Some("one"))?;
    ours.deploy_in("same", hello, Some("one"))?;
    ours.deploy_in("other", hello, Some("two"))?;
    let rounds = rounds_within_the_limit(ours)?;
    let stop = Arc::new(AtomicBool::new(false));
    let watch = |name: &'static str| {
        let (address, stop) = (ours.http.clone(), stop.clone());
        std::thread::spawn(move || steady(&address, name, &stop))
    };
    let (same, other) = (watch("same"), watch("other"));
    let begun = Instant::now();
    while begun.elapsed() < WATCHED {
        let answer = ask(&ours.http, "computes", &format!("?n={rounds}"))?;
        anyhow::ensure!(answer.status == 200 || answer.text.contains("exceededCpu"), "{}", answer.text);
    }
    stop.store(true, Ordering::Relaxed);
    for (name, watched) in [("in its cordon", same), ("in another cordon", other)] {
        let mut ms = watched.join().map_err(|_| anyhow::anyhow!("a neighbour panicked"))??;
        ms.sort_by(f64::total_cmp);
        let p99 = ms.get(ms.len() * 99 / 100).copied().unwrap_or(f64::NAN);
        table.alone(&format!("p99 of a neighbour {name} of one that computes"), "ms", p99, "50");
    }
    Ok(())
}

/// As many rounds as take nine tenths of the limit.
fn rounds_within_the_limit(ours: &Ours) -> anyhow::Result<u64> {
    let mut rounds = 1_000_000;
    loop {
        let took =
            (0..3).map(|_| ask(&ours.http, "computes", &format!("?n={rounds}")).map(|answer| answer.ms)).collect::<Result<_, _>>()?;
        if median(took) > CPU_MS * 0.8 {
            return Ok(rounds);
        }
        rounds = rounds * 9 / 8;
    }
}

/// Asks again and again until it is stopped: milliseconds of each answer.
fn steady(address: &str, name: &str, stop: &AtomicBool) -> anyhow::Result<Vec<f64>> {
    let mut ms = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let answer = ask(address, name, "")?;
        anyhow::ensure!(answer.status == 200, "{name}: {}", answer.text);
        ms.push(answer.ms);
        std::thread::sleep(PACE);
    }
    Ok(ms)
}
