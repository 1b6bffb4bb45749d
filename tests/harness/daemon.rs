//! The built binary in processes of its own, for tests that kill, restart or drive it as a user does.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use selvedge_origin::client::Client;
use selvedge_origin::tokens::TokenFile;
use serde_json::Value;

/// How long a process may take until it says its addresses.
const READY_WAIT: Duration = Duration::from_secs(30);
/// How long a process may take to end after SIGTERM.
const END_WAIT: Duration = Duration::from_secs(30);

/// The built binary: what `./x` says, or the one beside the folder of the test's own.
pub fn selvedge() -> PathBuf {
    if let Some(path) = std::env::var_os("SELVEDGE_PROGRAM") {
        return path.into();
    }
    let own = std::env::current_exe().expect("a test has an executable");
    let path = own.ancestors().nth(2).expect("target/PROFILE/deps/TEST").join("selvedge");
    assert!(path.is_file(), "{} is missing: ./x test builds it first", path.display());
    path
}

/// The built binary as an origin and one node, and a way to deploy to them.
pub struct Built {
    /// Deploys.
    pub cluster: crate::Cluster,
    /// The node.
    pub edge: Daemon,
    /// The registry.
    pub origin: Daemon,
    /// The registry's folder.
    pub origin_data: PathBuf,
    /// The node's folder.
    pub edge_data: PathBuf,
}

/// A loopback address that a daemon finds free when it comes back after it was killed. Its port is below those that the kernel gives to outgoing connections: one of these would
/// have taken it meanwhile, now and then.
fn lasting_address() -> String {
    const PORTS: std::ops::Range<u32> = 10_240..32_768;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let free = |port: &u32| {
        let address = (Ipv4Addr::LOCALHOST, *port as u16);
        TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
    };
    let candidates = std::iter::repeat_with(|| {
        let offset = std::process::id().wrapping_mul(64).wrapping_add(NEXT.fetch_add(1, Relaxed));
        PORTS.start + offset % (PORTS.end - PORTS.start)
    });
    let port = candidates.take(PORTS.len()).find(free).expect("a free port");
    format!("127.0.0.1:{port}")
}

impl Built {
    /// Starts both; returns when the node follows the origin.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// The same, with a node that has these settings, as TOML.
    pub async fn start_with(settings: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (origin_data, edge_data) = (dir.path().join("origin"), dir.path().join("edge"));
        let origin = Daemon::origin(&origin_data, &lasting_address());
        let file = dir.path().join("node.toml");
        std::fs::write(&file, settings).expect("a writable folder");
        let (https, http) = (lasting_address(), lasting_address());
        let mut arguments = Daemon::edge_arguments("node-0", &edge_data, &origin.url(), &origin_data, &https, &http);
        arguments.extend(["--config".to_owned(), file.to_string_lossy().into_owned()]);
        let edge = Daemon::start_by(Command::new(selvedge()), &arguments);
        let cluster = crate::Cluster::around(origin.client(&origin_data), dir, 1).await;
        Self { cluster, edge, origin, origin_data, edge_data }
    }
}

/// `selvedge origin` or `selvedge edge` as a child. Killed when dropped.
pub struct Daemon {
    child: Child,
    /// What it said once it was ready.
    pub addresses: Value,
    log: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    /// Starts it, and waits until it is ready.
    pub fn start(arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self::start_by(Command::new(selvedge()), &arguments)
    }

    /// The same by a command that runs the built binary with what follows.
    pub fn start_by(mut command: Command, arguments: &[String]) -> Self {
        let mut child = command
            .args(arguments)
            .arg("--print-addresses")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the built binary starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Ok(value @ Value::Object(_)) = serde_json::from_str(&line) {
                    let _ = ready.send(value);
                }
                lines.lock().expect("no panic under this lock").push(line);
            }
        });
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().expect("no panic under this lock").push(line);
            }
        });
        let addresses = is_ready.recv_timeout(READY_WAIT).unwrap_or_else(|_| {
            let _ = child.kill();
            panic!("selvedge {arguments:?} is not ready:\n{}", log.lock().expect("no panic under this lock").join("\n"))
        });
        Self { child, addresses, log }
    }

    /// Starts an origin in a folder.
    pub fn origin(data: &Path, listen: &str) -> Self {
        Self::start(&["origin", "--data", &data.to_string_lossy(), "--listen", listen])
    }

    /// Starts a node that joins the origin in `origin_data` at `url`.
    pub fn edge(name: &str, data: &Path, url: &str, origin_data: &Path) -> Self {
        Self::edge_at(name, data, url, origin_data, "127.0.0.1:0", "127.0.0.1:0")
    }

    /// The same, at addresses of the test's choice.
    pub fn edge_at(name: &str, data: &Path, url: &str, origin_data: &Path, https: &str, http: &str) -> Self {
        let arguments = Self::edge_arguments(name, data, url, origin_data, https, http);
        Self::start_by(Command::new(selvedge()), &arguments)
    }

    /// What [`Self::edge_at`] says to the built binary.
    pub fn edge_arguments(name: &str, data: &Path, url: &str, origin_data: &Path, https: &str, http: &str) -> Vec<String> {
        let token = origin_data.join("node.token");
        let (data, token) = (data.to_string_lossy(), token.to_string_lossy());
        let arguments = [
            "edge",
            "--name",
            name,
            "--region",
            "test",
            "--data",
            &data,
            "--origin",
            url,
            "--token-file",
            &token,
            "--https",
            https,
            "--http",
            http,
            "--admin",
            "127.0.0.1:0",
        ];
        arguments.map(str::to_owned).to_vec()
    }

    /// The URL that an origin printed.
    pub fn url(&self) -> String {
        self.addresses["url"].as_str().expect("an origin prints its URL").to_owned()
    }

    /// Calls an origin as its operator.
    pub fn client(&self, data: &Path) -> Client {
        let token = TokenFile::read(&data.join("admin.token")).expect("the origin made it");
        Client::connect(&self.url(), &token).expect("a valid URL and token")
    }

    /// One of the addresses that it printed.
    pub fn address(&self, which: &str) -> SocketAddr {
        self.addresses[which].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {which} in {}", self.addresses))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        // SAFETY: kill takes no memory; the id is that of a child not yet waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let deadline = Instant::now() + END_WAIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return status;
            }
            assert!(Instant::now() < deadline, "does not end within {END_WAIT:?} of SIGTERM:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic under this lock").join("\n")
    }

    /// Children of the process: for an edge, its runners (the waiting parent and the process that holds V8).
    pub fn children(&self) -> Vec<u32> {
        crate::crossing::descendants(self.pid())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        crate::panics::none_in(&self.log());
    }
}
