//! A "hello" worker against workerd with the same script.

use crate::load;
use crate::ours::{Ours, free_port};
use crate::peers;
use crate::table::Table;

/// Pairs of runs, ours and the peer's in turn.
const PAIRS: usize = 5;
const SECONDS: u32 = 4;
const CONNECTIONS: u32 = 64;

const HELLO: &str =
    "export default { async fetch(request) { return new Response('hello\\n', { headers: { 'content-type': 'text/plain' } }); } };";

/// Requests per CPU second, with 64 connections over HTTP/1.1 cleartext.
pub(crate) fn measure(table: &mut Table) -> anyhow::Result<()> {
    let ours = Ours::start()?;
    ours.deploy("hello", HELLO)?;
    let dir = tempfile::tempdir()?;
    let port = free_port()?;
    let workerd = peers::workerd(dir.path(), HELLO, port)?;
    let url = format!("http://{}/", ours.http);
    let (mut our_samples, mut peer_samples) = (Vec::new(), Vec::new());
    for pair in 0..=PAIRS {
        let our = load::run(&ours.edge, &url, "hello.test", CONNECTIONS, SECONDS)?;
        let peer = load::run(&workerd, &format!("http://127.0.0.1:{port}/"), "hello.test", CONNECTIONS, SECONDS)?;
        if pair > 0 {
            // The first pair warms both up.
            our_samples.push(our);
            peer_samples.push(peer);
        }
    }
    load::compare(table, "hello worker", &our_samples, ("workerd", &peer_samples), "3");
    Ok(())
}
