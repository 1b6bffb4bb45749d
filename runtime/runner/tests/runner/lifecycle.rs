//! Loading, answering, unloading, and the ends of a runner.

use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use selvedge_runtime::protocol::{ToEdge, ToRunner, versions_per_link};
use selvedge_runtime::{Limits, Outcome};

use crate::Case;
use crate::edge::{PATIENCE, Runner};

pub(crate) const CASES: &[Case] = &[
    ("a_hello_worker_answers", a_hello_worker_answers),
    ("a_start_right_after_its_version_waits_for_it", a_start_right_after_its_version_waits_for_it),
    ("many_invocations_of_many_versions_share_a_thread", many_invocations_of_many_versions_share_a_thread),
    ("a_version_that_does_not_compile_is_gone_and_says_why", a_version_that_does_not_compile_is_gone_and_says_why),
    ("an_unloaded_version_finishes_what_runs", an_unloaded_version_finishes_what_runs),
    ("isolates_come_and_go_and_memory_stays_flat", isolates_come_and_go_and_memory_stays_flat),
    ("a_runner_reads_on_after_it_had_too_much_to_say", a_runner_reads_on_after_it_had_too_much_to_say),
    ("a_runner_ends_with_its_link", a_runner_ends_with_its_link),
    ("a_malformed_frame_ends_the_runner", a_malformed_frame_ends_the_runner),
    ("killing_the_waiting_parent_kills_the_runner", killing_the_waiting_parent_kills_the_runner),
    ("a_runner_without_a_compiler_answers", a_runner_without_a_compiler_answers),
    ("what_is_sent_to_the_whole_group_does_not_end_a_runner", what_is_sent_to_the_whole_group_does_not_end_a_runner),
    ("an_idle_runner_sleeps", an_idle_runner_sleeps),
    ("sixteen_threads_have_room_for_all_their_isolates", sixteen_threads_have_room_for_all_their_isolates),
];

/// Run with `--ignored` only.
pub(crate) const LONG: &[Case] =
    &[("a_hundred_thousand_isolates_come_and_go_and_memory_stays_flat", a_hundred_thousand_isolates_come_and_go_and_memory_stays_flat)];

fn a_hello_worker_answers() {
    let mut runner = Runner::start();
    let link = runner.link();
    link.load_handler(1, "return new Response('hello from ' + new URL(request.url).hostname);");
    let run = link.run(1, 1);
    assert_eq!((run.text().as_str(), run.outcome, run.failed.is_none()), ("hello from worker.test", Outcome::Ok, true));
    assert!(link.area.has_started(1));
    assert!(link.area.heartbeat_ns() > 0);
}

fn a_start_right_after_its_version_waits_for_it() {
    let mut runner = Runner::start();
    let link = runner.link();
    let source = "let x = 0; for (let i = 0; i < 1e5; i++) x += i; await null; export default { fetch() { return new Response('late') } }";
    link.send_load(1, source, Limits::default());
    // Sent while the version loads: not refused, unless loading it takes so long that the thread is busy.
    assert_eq!(link.run(1, 1).text(), "late");
    link.send_load(2, "throw new Error('never')", Limits::default());
    link.start(2, 2, "http://worker.test/");
    link.receive(|message| matches!(message, ToEdge::Bounced { stream: 2 }));
}

fn many_invocations_of_many_versions_share_a_thread() {
    const VERSIONS: u32 = 5;
    const EACH: u32 = 40;
    let mut runner = Runner::start();
    let link = runner.link();
    for slot in 1..=VERSIONS {
        let wait = "await new Promise(r => setTimeout(r, 1 + Math.random() * 20));";
        link.load_handler(slot, &format!("{wait} return new Response('{slot} ' + new URL(request.url).pathname);"));
    }
    for stream in 1..=VERSIONS * EACH {
        link.start(1 + stream % VERSIONS, stream, &format!("http://worker.test/{stream}"));
    }
    for stream in 1..=VERSIONS * EACH {
        // One that came while another held the thread for long is given back: it would run elsewhere.
        if link.has(|message| matches!(message, ToEdge::Bounced { stream: s } if *s == stream)) {
            continue;
        }
        let done = |m: &ToEdge| matches!(m, ToEdge::Done { stream: s, .. } | ToEdge::Bounced { stream: s } if *s == stream);
        match link.receive(done) {
            ToEdge::Done { outcome, .. } => assert_eq!(outcome, Outcome::Ok),
            _ => continue,
        }
        let ToEdge::Response { body, .. } = link.receive(|m| matches!(m, ToEdge::Response { stream: s, .. } if *s == stream)) else {
            unreachable!()
        };
        let expected = format!("{} /{stream}", 1 + stream % VERSIONS);
        assert_eq!(body, selvedge_runtime::protocol::BodyKind::Whole(expected.into()));
    }
}

fn a_version_that_does_not_compile_is_gone_and_says_why() {
    let mut runner = Runner::start();
    let link = runner.link();
    for (slot, source) in [(1, "export default {{{"), (2, "throw new TypeError('at start')"), (3, "export default { }")] {
        link.send_load(slot, source, Limits::default());
        let (outcome, message) = link.gone(slot);
        assert_eq!(outcome, Outcome::StartupFailed, "{message}");
        assert!(!message.is_empty());
    }
    link.load_handler(4, "return new Response('the thread goes on')");
    assert_eq!(link.run(4, 1).text(), "the thread goes on");
}

fn an_unloaded_version_finishes_what_runs() {
    let mut runner = Runner::start();
    let link = runner.link();
    link.load_handler(1, "await new Promise(r => setTimeout(r, 50)); return new Response('finished');");
    link.start(1, 1, "http://worker.test/");
    link.send(&[ToRunner::Unload { slot: 1 }]);
    link.start(1, 2, "http://worker.test/");
    link.receive(|message| matches!(message, ToEdge::Bounced { stream: 2 }));
    assert_eq!(link.finish(1).unwrap().text(), "finished");
    assert_eq!(link.gone(1).0, Outcome::Ok);
}

/// What one isolate may leave behind, in KiB: with this little, a hundred thousand of them leave what an operator would see.
const LEFT_KIB_MAX: f64 = 4.0;
/// The first isolates fill what is kept for the next.
const FIRST: u32 = 500;
/// Looks at the process's memory, of which the least counts: it goes up and down by some MiB.
const LOOKS: u32 = 100;

fn isolates_come_and_go_and_memory_stays_flat() {
    let left = left_by_isolates(700, 3);
    // Memory that is taken once and kept shows in one part of the run, what each isolate leaves in all of them.
    assert!(left[1] < LEFT_KIB_MAX, "{left:.2?} KiB of each isolate are left");
}

/// As many as a node has in months.
fn a_hundred_thousand_isolates_come_and_go_and_memory_stays_flat() {
    let left = left_by_isolates(20_000, 5);
    assert!(left.iter().all(|left| *left < LEFT_KIB_MAX / 4.0) && left[2] < LEFT_KIB_MAX / 40.0, "{left:.2?} KiB of each isolate are left");
}

/// What each isolate leaves behind in KiB, in so many parts of the run, sorted.
fn left_by_isolates(isolates: u32, parts: u32) -> Vec<f64> {
    let mut runner = Runner::start();
    let pid = runner.inner_pid();
    let source = "const kept = new Array(10000).fill({}); export default { fetch() { return new Response('' + kept.length) } }";
    let mut slot = 0;
    let mut churn = |isolates: u32| {
        let link = runner.link();
        let mut least = u64::MAX;
        for left in (0..isolates).rev() {
            slot += 1;
            link.load(slot, source);
            assert_eq!(link.run(slot, slot).text(), "10000");
            link.send(&[ToRunner::Unload { slot }]);
            assert_eq!(link.gone(slot).0, Outcome::Ok);
            if left < LOOKS {
                least = least.min(status_kib(pid, "RssAnon:"));
            }
        }
        least
    };
    let mut kib = vec![churn(FIRST)];
    kib.extend((0..parts).map(|_| churn(isolates)));
    let mut left: Vec<f64> = kib.windows(2).map(|pair| (pair[1] as f64 - pair[0] as f64) / f64::from(isolates)).collect();
    eprintln!("{kib:?} KiB after each {isolates} isolates: {left:.2?} KiB of each");
    left.sort_by(f64::total_cmp);
    left
}

fn a_runner_reads_on_after_it_had_too_much_to_say() {
    // So much that what waits behind it goes at once, as soon as the kernel says that there is room: when three quarters are free.
    const ROOM: usize = 8 << 20;
    let force = |socket: &UnixStream| rustix::net::sockopt::set_socket_send_buffer_size_force(socket, ROOM);
    if force(&UnixStream::pair().unwrap().0).is_err() {
        println!("no privilege here to make a socket large: nothing is shown");
        return;
    }
    let mut runner = Runner::spawn_on(&["runner"], 1, Stdio::inherit(), |socket| force(socket).unwrap());
    runner.link().receive(|message| matches!(message, ToEdge::Hello { .. }));
    let pid = runner.inner_pid();
    let link = runner.link();
    // 4 MiB each time.
    link.load_handler(
        1,
        "for (let n = 0; n < 64; n++) fetch('https://upstream.test/', { method: 'POST', body: new Uint8Array(65536) }); await 0;
                          return new Promise(() => {});",
    );
    let mut stream = 1;
    loop {
        link.start(1, stream, "http://worker.test/");
        // It reads no more when all of it sleeps: on a slow machine it waits for its turn, which is no sleep.
        let mut asleep = Instant::now();
        while !link.area.has_started(stream) && asleep.elapsed() < Duration::from_secs(1) {
            std::thread::park_timeout(Duration::from_millis(2));
            if !sleeps(pid) {
                asleep = Instant::now();
            }
        }
        if !link.area.has_started(stream) {
            break;
        }
        // Not before its turn is over: it would be given back.
        while link.area.turn_started_ns() != 0 {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        stream += 1;
    }
    assert!((4..12).contains(&stream), "the socket and the outbox took {stream} times 4 MiB");
    // One after the other, so that nothing is kept, or shown where it does not come.
    while !matches!(link.receive(|_| true), ToEdge::Fetch { stream: other, part: 64, .. } if other == stream) {}
}

fn a_runner_ends_with_its_link() {
    let mut runner = Runner::start();
    runner.link().load_handler(1, "return new Response('x')");
    runner.links.clear();
    assert_eq!(runner.ended().code(), Some(0));
}

fn a_malformed_frame_ends_the_runner() {
    let mut runner = Runner::start();
    runner.link().send_bytes(&[5, 0, 0, 0, 250, 1, 2, 3, 4]);
    assert_eq!(runner.ended().code(), Some(67));
}

fn killing_the_waiting_parent_kills_the_runner() {
    let mut runner = Runner::start();
    let inner = runner.inner_pid();
    runner.child.kill().unwrap();
    assert_eq!(runner.ended().signal(), Some(9));
    // The links are still open here: it is the parent's death that ends it.
    let begun = Instant::now();
    while std::path::Path::new(&format!("/proc/{inner}/task")).exists() && state(inner) != Some('Z') {
        assert!(begun.elapsed() < PATIENCE, "the runner outlives its parent");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn a_runner_without_a_compiler_answers() {
    let mut runner = Runner::spawn(&["runner", "--v8-flags", "--jitless"], 1, Stdio::inherit());
    let link = runner.link();
    link.receive(|message| matches!(message, ToEdge::Hello { .. }));
    link.load_handler(1, "return new Response('interpreted: ' + typeof WebAssembly)");
    assert!(link.run(1, 1).text().starts_with("interpreted"));
}

fn what_is_sent_to_the_whole_group_does_not_end_a_runner() {
    let mut runner = Runner::start();
    for pid in [runner.child.id() as i32, runner.inner_pid()] {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: to a process that this test has started.
            unsafe { libc::kill(pid, signal) };
        }
    }
    runner.link().load_handler(1, "return new Response('still here')");
    assert_eq!(runner.link().run(1, 1).text(), "still here");
}

fn an_idle_runner_sleeps() {
    let mut runner = Runner::spawn(&["runner"], 2, Stdio::inherit());
    for link in &mut runner.links {
        link.receive(|message| matches!(message, ToEdge::Hello { .. }));
        link.load_handler(1, "return new Response('x')");
        link.run(1, 1);
    }
    // What V8 does after a load (collecting garbage, mostly) ends at some time; then a second has few wake-ups.
    let begun = Instant::now();
    loop {
        let before = switches(runner.inner_pid());
        std::thread::park_timeout(Duration::from_secs(1));
        let count = switches(runner.inner_pid()) - before;
        if count <= 12 {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "an idle runner wakes {count} times in a second");
    }
}

fn sixteen_threads_have_room_for_all_their_isolates() {
    let mut runner = Runner::spawn(&["runner"], 16, Stdio::inherit());
    for link in &mut runner.links {
        link.receive(|message| matches!(message, ToEdge::Hello { .. }));
        for slot in 1..=versions_per_link(16) as u32 {
            link.load_handler(slot, "return new Response('room')");
            assert_eq!(link.run(slot, slot).text(), "room");
        }
    }
}

/// Voluntary context switches of all threads.
fn switches(pid: i32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.map(|task| field(&task.unwrap().path().join("status"), "voluntary_ctxt_switches:")).sum()
}

/// All threads wait for something.
fn sleeps(pid: i32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut states = tasks.filter_map(|task| state_in(&task.unwrap().path()));
    states.all(|state| state == 'S')
}

pub(crate) fn status_kib(pid: i32, name: &str) -> u64 {
    field(std::path::Path::new(&format!("/proc/{pid}/status")), name)
}

fn field(path: &std::path::Path, name: &str) -> u64 {
    let status = std::fs::read_to_string(path).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn state(pid: i32) -> Option<char> {
    state_in(std::path::Path::new(&format!("/proc/{pid}")))
}

fn state_in(path: &std::path::Path) -> Option<char> {
    let status = std::fs::read_to_string(path.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("State:"))?.trim().chars().next()
}
