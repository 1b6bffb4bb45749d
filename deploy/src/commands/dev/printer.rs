//! What the node tells `dev`, as lines: each request when it is complete, `console.*` and exceptions as they happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use selvedge_edge::metrics::CacheResult;
use selvedge_edge::request::{Observer, RequestRecord, WorkerLine, WorkerRecord};
use selvedge_runtime::{LogLevel, Outcome};

use crate::output::{Output, Tone};

/// Lines that wait for a slow terminal; more are counted, not printed: the node does not wait for it.
const LINES_MAX: usize = 4_096;

/// A line and how it looks.
struct Line {
    text: String,
    tone: Tone,
    /// Where it comes from: less important.
    place: Option<String>,
    document: serde_json::Value,
}

struct Printer {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

/// Starts the thread that prints, and gives the observer that feeds it. It ends with the node.
pub(super) fn start(output: Output) -> std::io::Result<Arc<dyn Observer>> {
    let (lines, waiting) = sync_channel(LINES_MAX);
    let lost = Arc::new(AtomicU64::new(0));
    let printer = Arc::new(Printer { lines, lost: lost.clone() });
    std::thread::Builder::new().name("printer".to_owned()).spawn(move || print(&waiting, &lost, output))?;
    Ok(printer)
}

fn print(waiting: &Receiver<Line>, lost: &AtomicU64, output: Output) {
    while let Ok(line) = waiting.recv() {
        let place = line.place.map(|place| output.paint(&format!(" {place}"), Tone::Dim)).unwrap_or_default();
        output.line(output.paint(&line.text, line.tone) + &place);
        output.document(&line.document);
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            output.warn(format!("{lost} lines were too many to print"));
        }
    }
}

impl Printer {
    fn send(&self, line: Line) {
        if self.lines.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Observer for Printer {
    fn request(&self, record: &RequestRecord) {
        self.send(Line { text: request_text(record), tone: request_tone(record), place: None, document: request_document(record) });
    }

    fn worker_line(&self, line: &WorkerLine) {
        let level = if line.exception { "uncaught" } else { level(line.level) };
        let tone = if line.exception || line.level == LogLevel::Error { Tone::Bad } else { Tone::Plain };
        let document = serde_json::json!({
            "worker": &*line.worker, "level": level, "message": line.message, "place": line.place, "request": &*line.request_id
        });
        let text = line.message.replace('\n', "\n        ");
        self.send(Line { text: format!("{level:>7} {text}"), tone, place: line.place.clone(), document });
    }
}

fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "debug",
        LogLevel::Log => "log",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    }
}

fn request_tone(record: &RequestRecord) -> Tone {
    match record.status {
        Some(status) if status.is_server_error() => Tone::Bad,
        Some(_) => Tone::Good,
        None => Tone::Dim,
    }
}

/// `GET /path 200 12 ms, cpu 1.2 of 200 ms, heap 3.1 of 128 MiB, cache miss`.
fn request_text(record: &RequestRecord) -> String {
    let status = record.status.map_or_else(|| "canceled".to_owned(), |status| status.as_u16().to_string());
    let indent = if record.depth > 0 { "  fetch " } else { "" };
    let mut text = format!("{indent}{} {} {status} {} ms", record.method, record.path, record.wall.as_millis());
    if let Some(worker) = &record.worker {
        text.push_str(&used(worker));
    }
    text.push_str(&format!(", cache {}", record.cache.map_or("off", CacheResult::name)));
    if record.depth == 0 {
        text.push_str(&format!(", {}", record.protocol.name()));
    }
    if let Some(outcome) = record.worker.as_ref().and_then(|worker| worker.outcome).filter(|outcome| *outcome != Outcome::Ok) {
        text.push_str(&format!(", {outcome}"));
    }
    if let Some(error) = record.error {
        text.push_str(&format!(", {error}"));
    }
    if let Some(error) = &record.error_text {
        text.push_str(&format!(": {}", error.lines().next().unwrap_or_default()));
    }
    text
}

fn used(worker: &WorkerRecord) -> String {
    let Some(report) = &worker.report else { return String::new() };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!(
        ", cpu {:.1} of {} ms, heap {:.1} of {:.0} MiB",
        report.cpu_us as f64 / 1_000.0,
        worker.cpu_ms_max,
        mib(report.heap_bytes),
        mib(worker.heap_bytes_max)
    )
}

fn request_document(record: &RequestRecord) -> serde_json::Value {
    let report = record.worker.as_ref().and_then(|worker| worker.report.as_ref());
    serde_json::json!({
        "request": &*record.id,
        "method": record.method.as_str(),
        "authority": &*record.authority,
        "path": &*record.path,
        "protocol": record.protocol.name(),
        "status": record.status.map(|status| status.as_u16()),
        "ms": record.wall.as_millis() as u64,
        "cache": record.cache.map(CacheResult::name),
        "outcome": record.worker.as_ref().and_then(|worker| worker.outcome).map(Outcome::name),
        "cpu_us": report.map(|report| report.cpu_us),
        "cpu_ms_max": record.worker.as_ref().map(|worker| worker.cpu_ms_max),
        "heap_bytes": report.map(|report| report.heap_bytes),
        "heap_bytes_max": record.worker.as_ref().map(|worker| worker.heap_bytes_max),
        "depth": record.depth,
    })
}
