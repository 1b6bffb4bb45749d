//! The built binary as its users type it: deploy, status, rollback, delete, apply, purge, explain, edge, dev.

mod demo;
mod deploy;
mod dev;
mod edge;
mod explain;
mod forged;
mod nodes;
mod origin;
mod purge;
mod site;

use std::path::Path;
use std::process::{Command, Stdio};

use selvedge_tests::{Daemon, selvedge};
use serde_json::Value;

/// An origin and a node in processes of their own.
struct Installation {
    dir: tempfile::TempDir,
    origin: Daemon,
    edge: Option<Daemon>,
}

/// What a command ended with.
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Installation {
    fn without_nodes() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let origin = Daemon::origin(&dir.path().join("origin"), "127.0.0.1:0");
        Self { dir, origin, edge: None }
    }

    fn start() -> Self {
        let mut installation = Self::without_nodes();
        let (data, origin) = (installation.dir.path().join("edge"), installation.dir.path().join("origin"));
        installation.edge = Some(Daemon::edge("node-0", &data, installation.url(), &origin));
        installation
    }

    fn url(&self) -> &str {
        self.origin.addresses["url"].as_str().expect("the origin says its URL")
    }

    /// Runs a command of the origin's operator, with `--json`.
    fn run(&self, arguments: &[&str]) -> Ended {
        self.run_for_people(&[arguments, &["--json"]].concat())
    }

    fn run_for_people(&self, arguments: &[&str]) -> Ended {
        let output = Command::new(selvedge())
            .args(arguments)
            .env("SELVEDGE_ORIGIN", self.url())
            .env("SELVEDGE_TOKEN_FILE", self.dir.path().join("origin/admin.token"))
            .stdin(Stdio::null())
            .output()
            .expect("the built binary starts");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Ended { code: output.status.code().expect("no signal ended it"), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// A worker's folder with one script.
    fn worker(&self, name: &str, script: &str) -> String {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        write_worker(&dir, name, script);
        dir.to_string_lossy().into_owned()
    }
}

impl Ended {
    fn document(&self) -> Value {
        serde_json::from_str(self.stdout.trim()).unwrap_or_else(|_| panic!("no JSON: {} {}", self.stdout, self.stderr))
    }
}

fn write_worker(dir: &Path, name: &str, script: &str) {
    let config = format!(r#"{{"name": "{name}", "main": "index.ts", "compatibility_date": "2026-08-01", "routes": ["{name}.test/*"]}}"#);
    std::fs::write(dir.join("wrangler.jsonc"), config).unwrap();
    std::fs::write(dir.join("index.ts"), script).unwrap();
}
