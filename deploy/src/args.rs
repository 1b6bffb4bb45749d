//! The command line: every command, flag and environment variable. The help texts are the user's manual.

mod values;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use selvedge_origin::registry::{NodeName, WorkerName};

use values::{duration, header, short_duration, var};

/// Run JavaScript and TypeScript workers on your own edge nodes.
#[derive(Debug, Parser)]
#[command(name = "selvedge", version, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 done (on every node that is there, where the command waits for nodes); 1 refused or failed (a node refuses it, or answers that it \
cannot say; delete: not confirmed); 2 wrong usage: nothing was done; 3 the origin has it, but not every node was seen to have it in time, or there is no node (a purge \
and a deletion are done without nodes), and for purge, explain and upstreams: a node is away, or does not answer in time; 4 superseded by a later deployment.\n\n\
Start here:\n  selvedge dev DIR                              run one worker on this machine\n  \
selvedge origin --data DIR --listen ADDR      keep workers, versions and routes\n  \
selvedge edge --origin URL --token-file F ... answer requests\n  \
selvedge deploy DIR --origin URL --token-file F\n\n\
Environment:\n  SELVEDGE_ORIGIN, SELVEDGE_TOKEN_FILE   stand for --origin and --token-file\n  \
SELVEDGE_LOG                           what edge, origin and dev log: warn; info,selvedge_edge=debug\n  \
NO_COLOR                               no colours"
)]
pub struct Cli {
    /// Print JSON on standard output instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the registry: it keeps workers, versions, deployments, routes and nodes, and never sees a customer's request
    Origin(OriginArgs),
    /// Run an edge node: it answers requests over HTTP/1.1, HTTP/2 and HTTP/3 from its cache, workers and upstreams
    Edge(Box<EdgeArgs>),
    /// Run the worker of one folder on this machine; saving a file swaps it in
    Dev(DevArgs),
    /// Bundle the worker of a folder, upload it, give it the traffic, and wait until every node runs it
    Deploy(DeployArgs),
    /// Declare routes to upstreams and workers with a site file, and wait until every node has them
    Apply(ApplyArgs),
    /// Show workers, routes and what each node runs
    Status(StatusArgs),
    /// List the versions of a worker
    Versions(VersionsArgs),
    /// List the deployments of a worker: which versions had its traffic, since when
    Deployments(DeploymentsArgs),
    /// Show what was changed in the registry, by whom, when and why: newest first
    Log(LogArgs),
    /// Give a worker's traffic back to an older version; its routes stay
    Rollback(RollbackArgs),
    /// Take back what is stored, on every node at once: by URL, prefix, host, tag, or everything
    Purge(PurgeArgs),
    /// Show what each node's cache would do with a request now, and why; the request is not made
    Explain(ExplainArgs),
    /// Show how each node finds the servers of upstreams
    Upstreams(UpstreamsArgs),
    /// Delete a worker with its versions and routes, and wait until no node that is there runs it
    Delete(DeleteArgs),
    /// List the nodes, or remove one
    Nodes(NodesArgs),
    /// Show the product on loopback: an origin, three nodes, two workers and an upstream
    Demo(DemoArgs),
    /// One part of `demo`: a small upstream
    #[command(hide = true)]
    DemoUpstream,
}

/// How a command finds the origin.
#[derive(Debug, Clone, Args)]
pub struct Registry {
    /// Address of the origin, such as https://origin.example:7700 or http://127.0.0.1:7700
    #[arg(long, env = "SELVEDGE_ORIGIN", value_name = "URL", global = true)]
    pub origin: Option<String>,
    /// File with the token that the origin made on its first start (admin.token)
    #[arg(long, env = "SELVEDGE_TOKEN_FILE", value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
}

/// `selvedge origin`.
#[derive(Debug, Args)]
pub struct OriginArgs {
    /// Folder for keys, tokens, the database and bundles; made on first start
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Address to listen on, such as 127.0.0.1:7700. Port 0 lets the kernel choose. On loopback cleartext HTTP is spoken unless
    /// --tls is given, everywhere else TLS
    #[arg(long, value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Speak TLS on a loopback address too
    #[arg(long)]
    pub tls: bool,
    /// Certificate chain (PEM), read again when the file changes. Without it the origin makes an authority of its own, which the tokens pin
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Print one JSON line with the addresses on standard output once ready (for scripts)
    #[arg(long)]
    pub print_addresses: bool,
}

/// `selvedge edge`.
#[derive(Debug, Args)]
pub struct EdgeArgs {
    /// Settings as TOML: name, region, data, https, http, admin, peer, origin and token_file as these flags, resolver, trusted_proxies,
    /// drain_timeout_ms, [[certificate]], [fetch], [cache], [upstream], [runner] and [limits]; flags win. edge-node/node.toml names every key
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address of the origin
    #[arg(long, value_name = "URL")]
    pub origin: Option<String>,
    /// File with the token that lets a node join (node.token); needed for the first start only
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Folder for the node's key, its last state, bundles and certificates; made on first start
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address for HTTPS: HTTP/1.1 and HTTP/2 over TCP and HTTP/3 over UDP on the same port
    #[arg(long, value_name = "ADDR")]
    pub https: Option<SocketAddr>,
    /// Address for cleartext HTTP
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// Address for health and metrics; keep it private
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
    /// Address at which other nodes of the region ask this one before an upstream; they prove their keys
    #[arg(long, value_name = "ADDR")]
    pub peer: Option<SocketAddr>,
    /// Certificate chain (PEM), chosen by server name; repeat with --key for more. Reloaded when the file changes. Without one for a
    /// name, a local authority in the data folder makes it
    #[arg(long, value_name = "FILE")]
    pub cert: Vec<PathBuf>,
    /// Private key (PEM) of the --cert in the same place
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
    /// Name of this node [default: the machine's host name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Region of this node, shown by status
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// Run workers although the kernel lacks what the sandbox needs. Never where strangers' code runs
    #[arg(long)]
    pub allow_unsandboxed: bool,
    /// Check the settings, the data folder and the token file, then exit
    #[arg(long)]
    pub check: bool,
    /// Print one JSON line with the addresses on standard output once ready (for scripts)
    #[arg(long)]
    pub print_addresses: bool,
}

/// `selvedge dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Folder with wrangler.jsonc, wrangler.json or wrangler.toml
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Port for https (TCP and UDP); 0 lets the kernel choose
    #[arg(long, default_value_t = 8787)]
    pub port: u16,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub ip: IpAddr,
    /// Set a variable over those of the file and .dev.vars (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = var)]
    pub var: Vec<(String, String)>,
    /// Run although the kernel lacks what the sandbox needs
    #[arg(long)]
    pub allow_unsandboxed: bool,
    /// Print one JSON line with the addresses on standard output once ready (for scripts)
    #[arg(long)]
    pub print_addresses: bool,
}

/// Whether and how long a command waits for the nodes.
#[derive(Debug, Clone, Args)]
pub struct Waiting {
    /// How long to wait for the nodes, such as 30s, 2m or 500ms
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub wait: Duration,
    /// Return as soon as the origin has it
    #[arg(long)]
    pub no_wait: bool,
}

/// `selvedge deploy`.
#[derive(Debug, Args)]
pub struct DeployArgs {
    /// Folder with wrangler.jsonc, wrangler.json or wrangler.toml
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// The origin.
    #[command(flatten)]
    pub registry: Registry,
    /// Whether it waits.
    #[command(flatten)]
    pub waiting: Waiting,
    /// Trust group: only workers of one cordon may share a runner process [default: shared]
    #[arg(long, value_name = "NAME")]
    pub cordon: Option<NodeName>,
    /// What this version is about, kept in the history
    #[arg(long, short, value_name = "TEXT")]
    pub message: Option<String>,
    /// Take routes over that belong to another worker or site file
    #[arg(long)]
    pub take_over: bool,
    /// Bundle and check only; print what would be uploaded
    #[arg(long)]
    pub dry_run: bool,
}

/// `selvedge apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The site file
    #[arg(value_name = "SITE.toml")]
    pub file: PathBuf,
    /// The origin.
    #[command(flatten)]
    pub registry: Registry,
    /// Show the difference, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Take routes over that belong to a worker or another site file
    #[arg(long)]
    pub take_over: bool,
    /// Whether it waits.
    #[command(flatten)]
    pub waiting: Waiting,
    /// Why, for the log
    #[arg(long, short, value_name = "TEXT")]
    pub message: Option<String>,
}

/// `selvedge status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The origin.
    #[command(flatten)]
    pub registry: Registry,
}

/// `selvedge versions`.
#[derive(Debug, Args)]
pub struct VersionsArgs {
    /// The worker
    pub name: WorkerName,
    /// The origin.
    #[command(flatten)]
    pub registry: Registry,
}

/// `selvedge deployments`.
#[derive(Debug, Args)]
pub struct DeploymentsArgs {
    /// The worker
    pub name: WorkerName,
    /// The origin.
    #[command(flatten)]
    pub registry: Registry,
}

/// `selvedge log`.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Entries to show
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=200))]
    pub limit: u64,
    /// Show those before the entry with this number: the last line of a page leads to the next
    #[arg(long, value_name = "SEQ")]
    pub before: Option<u64>,
    /// The origin.
    #[command(flatten)]
    pub registry: Registry,
}

/// `selvedge purge`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true)))]
pub struct PurgeArgs {
    /// URLs as clients ask for them (a route's `query` is heeded), with all their variants; http and https are the same here
    #[arg(value_name = "URL", group = "what")]
    pub urls: Vec<String>,
    /// A URL, with all its variants
    #[arg(long = "url", value_name = "URL", group = "what")]
    pub more_urls: Vec<String>,
    /// A key that a worker gave by cf.cacheKey in place of a URL
    #[arg(long = "key", value_name = "KEY", group = "what")]
    pub keys: Vec<String>,
    /// All URLs that begin so: host, then at least a slash, such as www.example.org/blog/
    #[arg(long = "prefix", value_name = "PREFIX", group = "what")]
    pub prefixes: Vec<String>,
    /// A host, on every port, or HOST:PORT
    #[arg(long = "host", value_name = "HOST", group = "what")]
    pub hosts: Vec<String>,
    /// A tag of Cache-Tag or Surrogate-Key
    #[arg(long = "tag", value_name = "TAG", group = "what")]
    pub tags: Vec<String>,
    /// All that is stored
    #[arg(long, group = "what")]
    pub everything: bool,
    /// Make it stale instead of gone: it is validated before it is used, or used as its rules for stale responses allow
    #[arg(long)]
    pub soft: bool,
    /// Why, for the log
    #[arg(long, short, value_name = "TEXT")]
    pub message: Option<String>,
    /// The origin.
    #[command(flatten)]
    pub registry: Registry,
    /// How long to wait for the nodes, such as 10s, 2m or 500ms
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub wait: Duration,
    /// Succeed although nodes are away: they apply the purge before anything later when they are back
    #[arg(long)]
    pub connected_only: bool,
}

/// Which nodes are asked, and for how long.
#[derive(Debug, Clone, Args)]
pub struct Asking {
    /// Ask this node only
    #[arg(long, value_name = "NODE")]
    pub node: Option<NodeName>,
    /// The origin.
    #[command(flatten)]
    pub registry: Registry,
    /// How long to wait for the nodes, such as 5s or 500ms; 30s at most. An origin that does not answer is given up 2s later
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = short_duration)]
    pub wait: Duration,
    /// Succeed although nodes are away
    #[arg(long)]
    pub connected_only: bool,
}

/// `selvedge explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The request's URL; without a scheme, https. Scheme, host and port as clients see them
    pub url: String,
    /// A header field of the request, such as "Accept-Encoding: gzip" (repeatable)
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// Its method
    #[arg(long, short = 'X', value_name = "METHOD", default_value = "GET")]
    pub method: String,
    /// Which nodes.
    #[command(flatten)]
    pub asking: Asking,
}

/// `selvedge upstreams`.
#[derive(Debug, Args)]
pub struct UpstreamsArgs {
    /// Which nodes.
    #[command(flatten)]
    pub asking: Asking,
}

/// `selvedge rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The worker
    pub name: WorkerName,
    /// The version: its id, the beginning of its id, or its number [default: the one that had the traffic before]
    #[arg(value_name = "VERSION")]
    pub to: Option<String>,
    /// The origin.
    #[command(flatten)]
    pub registry: Registry,
    /// Whether it waits.
    #[command(flatten)]
    pub waiting: Waiting,
    /// Why, kept in the history
    #[arg(long, short, value_name = "TEXT")]
    pub message: Option<String>,
}

/// `selvedge delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The worker
    pub name: WorkerName,
    /// The origin.
    #[command(flatten)]
    pub registry: Registry,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Whether it waits.
    #[command(flatten)]
    pub waiting: Waiting,
    /// Why, for the log
    #[arg(long, short, value_name = "TEXT")]
    pub message: Option<String>,
}

/// `selvedge nodes`.
#[derive(Debug, Args)]
pub struct NodesArgs {
    /// What to do [default: list]
    #[command(subcommand)]
    pub command: Option<NodesCommand>,
    /// The origin.
    #[command(flatten)]
    pub registry: Registry,
}

/// `selvedge nodes ...`.
#[derive(Debug, Subcommand)]
pub enum NodesCommand {
    /// List the nodes
    List,
    /// Revoke a node's key: it keeps serving what it has, and learns nothing new. To join again it needs a token and an empty data folder: the key in it stays revoked
    Remove {
        /// The node
        name: NodeName,
    },
}

/// `selvedge demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder with the examples hello and shop
    #[arg(long, value_name = "DIR", default_value = "deploy/examples")]
    pub examples: PathBuf,
    /// Ask once, print the table, exit with 0 if all answers were right, else 1
    #[arg(long)]
    pub once: bool,
    /// Deploy the shop without npm dependencies
    #[arg(long)]
    pub without_npm: bool,
    /// Edge nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub nodes: u8,
    /// Run although the kernel lacks what the sandbox needs
    #[arg(long)]
    pub allow_unsandboxed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn nodes_are_listed_where_nothing_else_is_said_and_the_origin_may_be_named_anywhere() {
        for line in
            ["nodes --origin http://a", "nodes list --origin http://a", "nodes --origin http://a list", "nodes remove n --origin http://a"]
        {
            let cli = Cli::try_parse_from(["selvedge"].into_iter().chain(line.split(' '))).expect(line);
            let Command::Nodes(nodes) = cli.command else { panic!("{line}") };
            assert_eq!(nodes.registry.origin.as_deref(), Some("http://a"), "{line}");
            assert_eq!(matches!(nodes.command, Some(NodesCommand::Remove { .. })), line.contains("remove"), "{line}");
        }
    }

    #[test]
    fn wrong_values_are_wrong_usage() {
        for line in [
            "dev --var X",
            "dev --var =x",
            "deploy --cordon A_B",
            "versions SHOP",
            "rollback a/b",
            "delete -",
            "nodes remove A!",
            "upstreams --node A!",
            "upstreams --wait 2m",
        ] {
            let refused = Cli::try_parse_from(["selvedge"].into_iter().chain(line.split(' '))).expect_err(line);
            assert_eq!(refused.exit_code(), 2, "{line}");
        }
    }
}
