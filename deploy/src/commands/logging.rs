//! The log of a long-running command on standard error: for people on a terminal, JSON lines elsewhere.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::WrongUsage;

/// What is logged where `SELVEDGE_LOG` says nothing.
const DEFAULT: &str = "info,h2=warn,hyper=warn,quinn=warn,rustls=warn,h3=warn,hickory_resolver=warn,hickory_proto=warn";

/// Starts the log. `default` is a filter in the syntax of `SELVEDGE_LOG` (`warn`, `info,selvedge_edge=debug`), which wins over it.
pub(super) fn start(default: Option<&str>) -> anyhow::Result<()> {
    let filter = match std::env::var("SELVEDGE_LOG") {
        Ok(text) => EnvFilter::try_new(&text).map_err(|error| WrongUsage(format!("SELVEDGE_LOG={text:?}: {error}")))?,
        Err(_) => EnvFilter::try_new(default.unwrap_or(DEFAULT))?,
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if std::io::stderr().is_terminal() {
        log.with_target(false).try_init()
    } else {
        log.json().flatten_event(true).with_span_list(false).with_ansi(false).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("the log: {error}"))
}
