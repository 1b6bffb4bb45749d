//! The peers, set up as their users would: workerd with the same script, nginx with `proxy_cache` in memory.

use std::path::{Path, PathBuf};

use crate::process::{Server, find};

/// workerd from npm, one thread, with the worker in `script` on the port.
pub(crate) fn workerd(dir: &Path, script: &str, port: u16) -> anyhow::Result<Server> {
    let program = npm_workerd()?;
    std::fs::write(dir.join("worker.js"), script)?;
    let config = format!(
        "using Workerd = import \"/workerd/workerd.capnp\";\n\
         const config :Workerd.Config = (services = [(name = \"main\", worker = (modules = [(name = \"worker.js\", esModule = embed \"worker.js\")], \
         compatibilityDate = \"2026-01-01\"))], sockets = [(name = \"http\", address = \"127.0.0.1:{port}\", http = (), service = \"main\")]);\n"
    );
    let path = dir.join("workerd.capnp");
    std::fs::write(&path, config)?;
    let mut server = Server::start("workerd", &program, &["serve", &path.to_string_lossy()], &dir.join("workerd.log"))?;
    server.wait_for(&format!("127.0.0.1:{port}"))?;
    Ok(server)
}

fn npm_workerd() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench/node_modules/@cloudflare/workerd-linux-64/bin/workerd");
    anyhow::ensure!(root.is_file(), "workerd is not at {}: ./x bench installs it with npm", root.display());
    Ok(root)
}

/// nginx with one worker process and `proxy_cache` in /dev/shm, in front of `upstream`; `sendfile` and `tcp_nopush` as in Debian's own configuration.
pub(crate) fn nginx(dir: &Path, upstream: &str, port: u16) -> anyhow::Result<Server> {
    let program = find("nginx").or_else(|| Some(PathBuf::from("/usr/sbin/nginx")).filter(|path| path.is_file()));
    let program = program.ok_or_else(|| anyhow::anyhow!("nginx is not installed: apt-get install nginx-light"))?;
    let cache = tempfile::tempdir_in("/dev/shm")?.keep();
    let config = format!(
        "daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/nginx.err; user root;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; proxy_cache_path {cache} keys_zone=z:10m inactive=1h; \
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {upstream}; proxy_cache z; proxy_http_version 1.1; }} }} }}\n",
        dir = dir.display(),
        cache = cache.display(),
    );
    let path = dir.join("nginx.conf");
    std::fs::write(&path, config)?;
    let arguments = ["-c", &path.to_string_lossy(), "-p", &dir.to_string_lossy()];
    let mut server = Server::start("nginx", &program, &arguments, &dir.join("nginx.log"))?;
    server.wait_for(&format!("127.0.0.1:{port}"))?;
    Ok(server)
}
