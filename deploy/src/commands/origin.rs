//! `selvedge origin`: runs the registry until it is told to stop.

use selvedge_origin::{Origin, OriginConfig};

use super::{DONE, logging, signals::Stop};
use crate::args::OriginArgs;
use crate::output::Output;

/// Runs the command.
pub(super) async fn run(args: OriginArgs, output: Output) -> anyhow::Result<u8> {
    logging::start(None)?;
    let mut stop = Stop::listen()?;
    let config = OriginConfig { data: args.data.clone(), listen: args.listen, tls: args.cert.zip(args.key), force_tls: args.tls };
    let origin = Origin::start(config).await?;
    let (admin, node) = (origin.admin_token_path(), origin.node_token_path());
    output.line(format!("origin: {}", origin.url()));
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
