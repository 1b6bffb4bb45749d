//! `selvedge edge`: runs a node until it is told to stop, then lets what runs finish.

use std::path::PathBuf;

use selvedge_edge::config::{CertificateFiles, ConfigError, Flags};
use selvedge_edge::{Addresses, Node, NodeConfig};

use super::{DONE, WrongUsage, logging, signals::Stop};
use crate::args::EdgeArgs;
use crate::output::Output;

/// Runs the command.
pub(super) async fn run(args: EdgeArgs, output: Output) -> anyhow::Result<u8> {
    let (print_addresses, check) = (args.print_addresses, args.check);
    let file = args.config.clone();
    let config = NodeConfig::load(flags(args)?, file.as_deref()).map_err(|error| match error {
        ConfigError::Missing(said) => anyhow::Error::new(WrongUsage(said)),
        error => error.into(),
    })?;
    if check {
        let token_file = config.origin.as_ref().and_then(|origin| origin.token_file.as_deref());
        selvedge_edge::deployments::check(&config.data, token_file)?;
        output.line("the settings are good");
        return Ok(DONE);
    }
    logging::start(None)?;
    let mut stop = Stop::listen()?;
    let name = config.name.clone();
    let Some(node) = stop.unless(Node::start(config)).await else { return Ok(DONE) };
    let node = node?;
    let addresses = node.addresses();
    print(&addresses, output);
    if print_addresses {
        let document = serde_json::json!({ "node": name, "https": addresses.https, "http": addresses.http, "admin": addresses.admin, "peer": addresses.peer });
        output.machine_line(&document);
    }
    stop.wait().await;
    tracing::info!("draining");
    let graceful = stop.or_again(node.drain()).await;
    tracing::info!(graceful, "stopped");
    Ok(DONE)
}

fn flags(args: EdgeArgs) -> anyhow::Result<Flags> {
    Ok(Flags {
        name: args.name,
        region: args.region,
        data: args.data,
        https: args.https,
        http: args.http,
        admin: args.admin,
        peer: args.peer,
        certificates: certificates(args.cert, args.key)?,
        origin: args.origin,
        token_file: args.token_file,
        threads: None,
        allow_unsandboxed: args.allow_unsandboxed,
        fetch_allow: Vec::new(),
    })
}

/// The first `--cert` belongs to the first `--key`, and so on.
fn certificates(chains: Vec<PathBuf>, keys: Vec<PathBuf>) -> anyhow::Result<Vec<CertificateFiles>> {
    if chains.len() != keys.len() {
        let said =
            format!("{} times --cert and {} times --key: each certificate needs its key, in the same order", chains.len(), keys.len());
        return Err(WrongUsage(said).into());
    }
    Ok(chains.into_iter().zip(keys).map(|(certificate, key)| CertificateFiles { certificate, key }).collect())
}

fn print(addresses: &Addresses, output: Output) {
    if let Some(address) = addresses.https {
        output.line(format!("https (HTTP/1.1, HTTP/2, HTTP/3): https://{address}"));
    }
    if let Some(address) = addresses.http {
        output.line(format!("http: http://{address}"));
    }
    if let Some(address) = addresses.admin {
        output.line(format!("admin: http://{address}"));
    }
    if let Some(address) = addresses.peer {
        output.line(format!("other nodes: {address}"));
    }
}
