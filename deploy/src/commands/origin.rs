//! `selvedge origin`: runs the registry until it is told to stop.

use std::net::SocketAddr;

use selvedge_edge::listen::own_addresses;
use selvedge_origin::{Origin, OriginConfig};

use super::{DONE, logging, signals::Stop};
use crate::args::OriginArgs;
use crate::output::Output;

/// Runs the command.
pub(super) async fn run(args: OriginArgs, output: Output) -> anyhow::Result<u8> {
    logging::start(None)?;
    let mut stop = Stop::listen()?;
    let config = OriginConfig { data: args.data.clone(), listen: args.listen, tls: args.cert.zip(args.key), force_tls: args.tls };
    let Some(origin) = stop.unless(Origin::start(config)).await else { return Ok(DONE) };
    let origin = origin?;
    let (admin, node) = (origin.admin_token_path(), origin.node_token_path());
    for url in urls(origin.url(), origin.address()) {
        output.line(format!("origin: {url}"));
    }
    output.line(format!("token for commands: {}", admin.display()));
    output.line(format!("token for nodes to join: {}", node.display()));
    if args.print_addresses {
        let document = serde_json::json!({ "url": origin.url(), "address": origin.address(), "admin_token": admin, "node_token": node });
        output.machine_line(&document);
    }
    stop.wait().await;
    tracing::info!("stopping");
    stop.or_again(async {
        origin.shutdown().await;
        true
    })
    .await;
    Ok(DONE)
}

/// Where commands and nodes find it: an unspecified address is none that anybody can connect to.
fn urls(url: String, address: SocketAddr) -> Vec<String> {
    if !address.ip().is_unspecified() {
        return vec![url];
    }
    let others = own_addresses(address).into_iter().filter(|own| !own.is_loopback() && (address.is_ipv6() || own.is_ipv4()));
    let mut urls: Vec<String> = others.map(|own| format!("https://{}", SocketAddr::new(own, address.port()))).collect();
    urls.push(format!("https://localhost:{}", address.port()));
    urls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_nobody_can_connect_to_is_not_printed() {
        let urls_of = |text: &str| urls(format!("https://{text}"), text.parse().unwrap());
        assert_eq!(urls_of("10.0.0.7:7700"), ["https://10.0.0.7:7700"]);
        for unspecified in ["[::]:7700", "0.0.0.0:7700"] {
            let urls = urls_of(unspecified);
            assert!(urls.iter().all(|url| !url.contains(unspecified)) && urls.last().unwrap() == "https://localhost:7700", "{urls:?}");
        }
    }
}
