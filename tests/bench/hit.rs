//! A 1 KiB cache hit against nginx `proxy_cache`.

use std::io::{Read, Write};

use crate::load;
use crate::ours::{Ours, free_port};
use crate::peers;
use crate::table::Table;

const PAIRS: usize = 5;
const SECONDS: u32 = 4;
const CONNECTIONS: u32 = 64;
const BODY_BYTES: usize = 1024;

/// Requests per CPU second of hits.
pub(crate) fn measure(table: &mut Table) -> anyhow::Result<()> {
    let upstream = upstream()?;
    let ours = Ours::start()?;
    ours.route_to("cached.test", &upstream)?;
    let dir = tempfile::tempdir()?;
    let port = free_port()?;
    let nginx = peers::nginx(dir.path(), &upstream, port)?;
    let (mut our_samples, mut peer_samples) = (Vec::new(), Vec::new());
    for pair in 0..=PAIRS {
        let our = load::run(&ours.edge, &format!("http://{}/", ours.http), "cached.test", CONNECTIONS, SECONDS)?;
        let peer = load::run(&nginx, &format!("http://127.0.0.1:{port}/"), "cached.test", CONNECTIONS, SECONDS)?;
        if pair > 0 {
            our_samples.push(our);
            peer_samples.push(peer);
        }
    }
    load::compare(table, "1 KiB cache hit", &our_samples, ("nginx", &peer_samples), "2");
    Ok(())
}

/// A server that answers every request with 1 KiB, fresh for an hour. Lives as long as the process.
fn upstream() -> anyhow::Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\nCache-Control: max-age=3600\r\nContent-Type: text/plain\r\n\r\n"
                );
                let mut buffer = [0; 8192];
                while socket.read(&mut buffer).is_ok_and(|read| read > 0) {
                    if socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(&[b'x'; BODY_BYTES])).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(url)
}
