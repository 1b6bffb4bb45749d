//! The customer's server: answers `/SIZE/ANYTHING` with so many bytes, fresh for an hour, on the load's core. A thread for each connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Largest body.
const BYTES_MAX: usize = 1 << 20;
static BODY: [u8; BYTES_MAX] = [b'x'; BYTES_MAX];

/// Requests that it has answered.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// How many requests it has answered.
pub(super) fn asked() -> u64 {
    ASKED.load(Relaxed)
}

/// Starts it; lives as long as the process. Gives `HOST:PORT`.
pub(super) fn start() -> anyhow::Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        crate::process::stand_behind_the_load();
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || serve(socket));
        }
    });
    Ok(address)
}

fn serve(mut socket: TcpStream) {
    let _ = socket.set_nodelay(true);
    let (mut buffer, mut held) = ([0; 16 << 10], 0);
    loop {
        let end = buffer[..held].windows(4).position(|end| end == b"\r\n\r\n");
        let Some(end) = end else {
            match socket.read(&mut buffer[held..]) {
                Ok(read) if read > 0 => held += read,
                _ => return,
            }
            continue;
        };
        let size = size_of_target(&buffer[..end]);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nCache-Control: max-age=3600\r\nContent-Type: text/plain\r\nETag: \"{size}\"\r\n\r\n"
        );
        let answer = [head.as_bytes(), &BODY[..size]].concat();
        ASKED.fetch_add(1, Relaxed);
        if socket.write_all(&answer).is_err() {
            return;
        }
        buffer.copy_within(end + 4..held, 0);
        held -= end + 4;
    }
}

fn size_of_target(head: &[u8]) -> usize {
    let text = String::from_utf8_lossy(head);
    let target = text.split(' ').nth(1).unwrap_or_default();
    target.split('/').nth(1).and_then(|size| size.parse().ok()).unwrap_or(0).min(BYTES_MAX)
}
