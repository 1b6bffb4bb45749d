//! Asks for many different objects once, or at a steady pace for as long as something else is measured: plain blocking sockets.

use std::io::{BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Connections that fill.
const CONNECTIONS: u32 = 16;
/// Requests that each sends before it reads.
const PIPELINED: u32 = 8;
/// How many others a steady load asks for before it asks for an object the second time.
const LATER: u32 = 64;

/// Asks for `/SIZE/0` to `/SIZE/COUNT-1`.
pub(super) fn all(address: SocketAddr, size: usize, count: u32) -> anyhow::Result<()> {
    let next = Arc::new(AtomicU32::new(0));
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let next = next.clone();
            std::thread::spawn(move || -> anyhow::Result<()> {
                crate::process::stand_behind_the_load();
                let mut connection = Connection::open(address)?;
                loop {
                    let first = next.fetch_add(PIPELINED, Relaxed);
                    if first >= count {
                        return Ok(());
                    }
                    connection.get(size, first..count.min(first + PIPELINED))?;
                }
            })
        })
        .collect();
    workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a filler panicked"))?)
}

/// Asks for objects that were never asked for, about so many in a second, until it is dropped; and for each once more a little later, because a memory that is full takes
/// only what is asked for again.
pub(super) struct Steady {
    stop: Arc<AtomicBool>,
    worker: Option<std::thread::JoinHandle<anyhow::Result<u32>>>,
}

impl Steady {
    pub(super) fn start(address: SocketAddr, size: usize, per_second: u32, first: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let worker = std::thread::spawn(move || {
            crate::process::stand_behind_the_load();
            let (mut connection, start, mut sent) = (Connection::open(address)?, Instant::now(), 0);
            while !stopped.load(Relaxed) {
                let due = (start.elapsed().as_secs_f64() * f64::from(per_second)) as u32;
                if sent < due {
                    let number = first + sent;
                    connection.get(size, number..number + 1)?;
                    if let Some(again) = sent.checked_sub(LATER) {
                        connection.get(size, first + again..first + again + 1)?;
                    }
                    sent += 1;
                } else {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            Ok(sent)
        });
        Self { stop, worker: Some(worker) }
    }

    /// Stops it; gives how many objects it asked for.
    pub(super) fn stop(mut self) -> anyhow::Result<u32> {
        self.stop.store(true, Relaxed);
        let worker = self.worker.take().ok_or_else(|| anyhow::anyhow!("stopped twice"))?;
        worker.join().map_err(|_| anyhow::anyhow!("the filler panicked"))?
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

struct Connection {
    reader: BufReader<TcpStream>,
    writer: BufWriter<TcpStream>,
    address: SocketAddr,
    head: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        Ok(Self {
            reader: BufReader::with_capacity(256 << 10, socket.try_clone()?),
            writer: BufWriter::new(socket),
            address,
            head: Vec::new(),
        })
    }

    fn get(&mut self, size: usize, numbers: std::ops::Range<u32>) -> anyhow::Result<()> {
        for number in numbers.clone() {
            write!(self.writer, "GET /{size}/{number} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address)?;
        }
        self.writer.flush()?;
        for _ in numbers {
            self.answer(size)?;
        }
        Ok(())
    }

    fn answer(&mut self, size: usize) -> anyhow::Result<()> {
        self.head.clear();
        let mut byte = [0];
        while !self.head.ends_with(b"\r\n\r\n") {
            self.reader.read_exact(&mut byte)?;
            self.head.push(byte[0]);
        }
        anyhow::ensure!(self.head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.head));
        let lower = self.head.to_ascii_lowercase();
        let text = String::from_utf8_lossy(&lower);
        if text.contains("transfer-encoding: chunked") {
            return self.chunks();
        }
        let copied = std::io::copy(&mut (&mut self.reader).take(size as u64), &mut std::io::sink())?;
        anyhow::ensure!(copied == size as u64, "{copied} bytes of {size}");
        Ok(())
    }

    fn chunks(&mut self) -> anyhow::Result<()> {
        use std::io::BufRead as _;
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            let length = u64::from_str_radix(line.trim(), 16)?;
            std::io::copy(&mut (&mut self.reader).take(length + 2), &mut std::io::sink())?;
            if length == 0 {
                return Ok(());
            }
        }
    }
}
