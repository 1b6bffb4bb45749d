//! One part of the demonstration: this very program in a process of its own, ended by its id.

use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::limits::{CHILD_STOP_TIMEOUT, START_TIMEOUT};

/// Bytes of a part's log that are shown where it fails.
const LOG_TAIL_BYTES: usize = 4_000;

/// A running part.
pub(super) struct Child {
    name: String,
    process: tokio::process::Child,
    /// The JSON line that it printed when it was ready.
    pub(super) ready: serde_json::Value,
    _stdout: tokio::task::JoinHandle<()>,
}

impl Child {
    /// Starts `selvedge ARGUMENTS` and waits for its line of JSON. Its log goes to a file in `dir`.
    pub(super) async fn start(name: &str, arguments: &[&str], dir: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding this program")?;
        let log_path = dir.join(format!("{name}.log"));
        let log = std::fs::File::create(&log_path).with_context(|| log_path.display().to_string())?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        // Ctrl-C on the terminal is for the demonstration, which then ends its parts in order.
        command.process_group(0);
        die_with_parent(&mut command);
        let mut process = command.spawn().with_context(|| format!("starting {name}"))?;
        let stdout = process.stdout.take().with_context(|| format!("{name} has no standard output"))?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if let Ok(value @ serde_json::Value::Object(_)) = serde_json::from_str(&line) {
                    return Ok(value);
                }
            }
            Err(std::io::Error::other("it ended before it was ready"))
        };
        let failed = || format!("{name} did not start; its log ends with:\n{}", tail(&log_path));
        let ready = tokio::time::timeout(START_TIMEOUT, ready).await.with_context(failed)?.with_context(failed)?;
        // Read on, so that the part never waits for a full pipe.
        let rest = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { name: name.to_owned(), process, ready, _stdout: rest })
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Waits for its end, which nobody asked for, and says so.
    pub(super) async fn ended(&mut self) -> String {
        match self.process.wait().await {
            Ok(status) => format!("{} ended by itself ({status})", self.name),
            Err(error) => format!("{} could not be waited for: {error}", self.name),
        }
    }

    /// Ends it: SIGTERM, and SIGKILL where that does not help.
    pub(super) async fn stop(mut self) {
        if let Some(pid) = self.process.id().and_then(|pid| i32::try_from(pid).ok()) {
            // SAFETY: kill takes no memory; the id is that of a child that is not waited for yet, so it is nobody else's.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        if tokio::time::timeout(CHILD_STOP_TIMEOUT, self.process.wait()).await.is_err() {
            let _ = self.process.kill().await;
        }
    }
}

/// A killed demonstration leaves nothing behind.
fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and takes no memory here.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) == -1 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let start = text.len().saturating_sub(LOG_TAIL_BYTES);
    let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text.get(start..).unwrap_or_default().to_owned()
}
