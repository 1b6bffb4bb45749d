//! What is compared, set up as their users would: each a cache in memory (or on disk) in front of the same upstream, on one core.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::ours::{Ours, free_port};
use crate::process::{Server, find};

/// How a server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    H1,
    H1Tls,
    H2,
    H3,
}

impl Over {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H1Tls => "h1 TLS",
            Self::H2 => "h2",
            Self::H3 => "h3",
        }
    }
}

/// A server under measurement.
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) ours: Option<Ours>,
    peer: Option<Server>,
    cleartext: Option<u16>,
    tls: Option<u16>,
    h3: Option<u16>,
}

impl Subject {
    /// The process.
    pub(super) fn server(&self) -> &Server {
        match (&self.ours, &self.peer) {
            (Some(ours), _) => &ours.edge,
            (None, Some(peer)) => peer,
            (None, None) => unreachable!("a subject is ours or a peer's"),
        }
    }

    /// Where it is asked; none where it does not speak that.
    pub(super) fn at(&self, over: Over) -> Option<SocketAddr> {
        let port = match over {
            Over::H1 => self.cleartext,
            Over::H1Tls | Over::H2 => self.tls,
            Over::H3 => self.h3,
        };
        port.map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// The URL of a path.
    pub(super) fn url(&self, over: Over, path: &str) -> Option<String> {
        let scheme = if over == Over::H1 { "http" } else { "https" };
        Some(format!("{scheme}://{}{path}", self.at(over)?))
    }
}

/// Where they are made: files, the upstream, a certificate.
pub(super) struct Stage {
    dir: tempfile::TempDir,
    upstream: String,
    certificate: PathBuf,
    key: PathBuf,
}

impl Stage {
    pub(super) fn new() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        std::fs::write(&certificate, made.cert.pem())?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
        Ok(Self { dir, upstream: super::upstream::start()?, certificate, key })
    }

    fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.dir.path().join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// This node. `settings` is more of its file, such as `[cache]`.
    pub(super) fn ours(&self, settings: &str) -> anyhow::Result<Subject> {
        let https = free_port()?;
        let file = self.dir.path().join("node.toml");
        let mut text = String::new();
        writeln!(text, "https = \"127.0.0.1:{https}\"\n{settings}")?;
        writeln!(text, "[[certificate]]\ncertificate = {:?}\nkey = {:?}", self.certificate, self.key)?;
        std::fs::write(&file, text)?;
        let ours = Ours::start_configured(&file)?;
        ours.route_to("", &format!("http://{}", self.upstream))?;
        let cleartext = ours.http.parse::<SocketAddr>()?.port();
        Ok(Subject { name: "Selvedge", cleartext: Some(cleartext), tls: Some(https), h3: Some(https), ours: Some(ours), peer: None })
    }

    /// nginx with one worker process and `proxy_cache` in `cache` (a folder in /dev/shm, or on disk); `sendfile` and `tcp_nopush` as in Debian's own configuration.
    pub(super) fn nginx(&self, cache: &Path) -> anyhow::Result<Subject> {
        let dir = self.folder("nginx")?;
        let (cleartext, tls) = (free_port()?, free_port()?);
        let config = format!(
            "daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/nginx.err; user root;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000; proxy_cache_path {cache} levels=1:2 keys_zone=z:256m inactive=1d max_size=64g;\n\
             upstream up {{ server {upstream}; keepalive 64; }}\n\
             server {{ listen 127.0.0.1:{cleartext}; listen 127.0.0.1:{tls} ssl http2; ssl_certificate {certificate}; ssl_certificate_key {key};\n\
             http2_max_requests 100000000; location / {{ proxy_pass http://up; proxy_cache z; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n",
            dir = dir.display(),
            cache = cache.display(),
            upstream = self.upstream,
            certificate = self.certificate.display(),
            key = self.key.display(),
        );
        // Obsolete since 1.19.7, where keepalive_requests counts for both.
        let config = config.replace("http2_max_requests 100000000; ", "");
        let file = dir.join("nginx.conf");
        std::fs::write(&file, config)?;
        let arguments = ["-c", &file.to_string_lossy(), "-p", &dir.to_string_lossy()];
        let server = start("nginx", &["nginx", "/usr/sbin/nginx"], &arguments, &dir, cleartext)?;
        Ok(Subject { name: "nginx", cleartext: Some(cleartext), tls: Some(tls), h3: None, ours: None, peer: Some(server) })
    }

    /// Varnish in memory. It speaks neither TLS nor HTTP/3.
    pub(super) fn varnish(&self, bytes: u64) -> anyhow::Result<Subject> {
        let dir = self.folder("varnish")?;
        let port = free_port()?;
        let (name, listen, storage) = (dir.join("work"), format!("127.0.0.1:{port}"), format!("malloc,{bytes}"));
        let arguments = [
            "-F",
            "-j",
            "none",
            "-n",
            &name.to_string_lossy(),
            "-a",
            &listen,
            "-b",
            &self.upstream,
            "-s",
            &storage,
            "-p",
            "thread_pools=1",
        ];
        let server = start("varnish", &["varnishd", "/usr/sbin/varnishd"], &arguments, &dir, port)?;
        Ok(Subject { name: "Varnish", cleartext: Some(port), tls: None, h3: None, ours: None, peer: Some(server) })
    }

    /// Caddy, which answers by HTTP/3 from files (Debian's has no cache): `/SIZE/hit`.
    pub(super) fn caddy(&self, sizes: &[usize]) -> anyhow::Result<Subject> {
        let dir = self.folder("caddy")?;
        for size in sizes {
            let folder = dir.join("files").join(size.to_string());
            std::fs::create_dir_all(&folder)?;
            std::fs::write(folder.join("hit"), vec![b'x'; *size])?;
        }
        let port = free_port()?;
        let config = format!(
            "{{\n admin off\n auto_https off\n storage file_system {dir}/store\n}}\nhttps://127.0.0.1:{port}, https://localhost:{port} {{\n tls {certificate} {key}\n root * {dir}/files\n file_server\n}}\n",
            dir = dir.display(),
            certificate = self.certificate.display(),
            key = self.key.display(),
        );
        let file = dir.join("Caddyfile");
        std::fs::write(&file, config)?;
        let arguments = ["run", "--adapter", "caddyfile", "--config", &file.to_string_lossy()];
        let server = start("caddy", &["caddy", "/usr/bin/caddy"], &arguments, &dir, port)?;
        Ok(Subject { name: "Caddy", cleartext: None, tls: Some(port), h3: Some(port), ours: None, peer: Some(server) })
    }
}

fn start(name: &'static str, programs: &[&str; 2], arguments: &[&str], dir: &Path, port: u16) -> anyhow::Result<Server> {
    let program = find(programs[0]).or_else(|| Some(PathBuf::from(programs[1])).filter(|path| path.is_file()));
    let program = program.ok_or_else(|| anyhow::anyhow!("{name} is not installed: ./x bench cache installs it"))?;
    let mut server = Server::start(name, &program, arguments, &dir.join("log"))?;
    server.wait_for(&format!("127.0.0.1:{port}"))?;
    Ok(server)
}
