//! File and flags → [`NodeConfig`]. The only place that knows the keys of the node's file and the only one that reads the
//! environment. An unknown key is an error that names the key and the file; [`NodeConfig::check`] is what `--check` runs.
//!
//! A flag wins over the file. Each key of [`NodeFile`] says its unit, default and both extremes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use selvedge_origin::registry::NodeName;
use serde::Deserialize;

use crate::cache::disk::{self, DiskConfig};
use crate::limits::Limits;

/// What a node is started with: valid values, no names of keys.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The node's name in the registry, in `Cache-Status` and `Proxy-Status`, and in `request.cf.colo`.
    pub name: NodeName,
    /// Its region, for `selvedge nodes`.
    pub region: String,
    /// The data folder: the node's key, its last state, its bundles, the local authority. Made if it is missing.
    pub data: PathBuf,
    /// Where h1, h2 (TCP) and h3 (UDP, same port) are served. Port 0: the kernel chooses one that is free for both.
    pub https: Option<SocketAddr>,
    /// Where h1 is served in cleartext.
    pub http: Option<SocketAddr>,
    /// Where health and metrics are served.
    pub admin: Option<SocketAddr>,
    /// Where other nodes are answered, and what they are told.
    pub peer: Option<SocketAddr>,
    /// Certificates by server name; the first one is also for clients that name no server.
    pub certificates: Vec<CertificateFiles>,
    /// The registry; without it the node serves what it last ran.
    pub origin: Option<OriginConfig>,
    /// The program that becomes a runner, and how.
    pub runner: RunnerConfig,
    /// Name servers; empty: those of `/etc/resolv.conf`.
    pub resolver: Vec<SocketAddr>,
    /// Addresses that a worker's `fetch()` may reach beside public ones.
    pub fetch_allow: Vec<IpNet>,
    /// PEM files with authorities that upstreams' certificates may come from, beside the public ones.
    pub upstream_authorities: Vec<PathBuf>,
    /// Clients whose forwarding fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Bytes of the memory cache.
    pub cache_memory_bytes: u64,
    /// The disk cache behind it; none: no disk is used.
    pub cache_disk: Option<DiskConfig>,
    /// How long a drain waits before it cancels what still runs.
    pub drain_timeout: Duration,
    /// Bounds of the listeners.
    pub limits: Limits,
}

/// A certificate chain and its key, PEM, read again when either file changes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// The chain, the node's own certificate first.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// How a node finds its registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginConfig {
    /// `https://HOST:PORT`, or `http://` on a loopback address.
    pub url: String,
    /// The file that `selvedge origin` made for joining. A node that has joined needs none.
    pub token_file: Option<PathBuf>,
}

/// What runners are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerConfig {
    /// The program; opened once when the node starts.
    pub executable: PathBuf,
    /// Its first arguments.
    pub arguments: Vec<String>,
    /// JavaScript threads of each runner.
    pub threads: usize,
    /// Run where the kernel lacks what the sandbox needs.
    pub allow_unsandboxed: bool,
}

/// The command line of `selvedge edge`, parsed but not yet merged with the file.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the same as in NodeConfig and NodeFile")]
pub struct Flags {
    pub name: Option<String>,
    pub region: Option<String>,
    pub data: Option<PathBuf>,
    pub https: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub admin: Option<SocketAddr>,
    pub peer: Option<SocketAddr>,
    pub certificates: Vec<CertificateFiles>,
    pub origin: Option<String>,
    pub token_file: Option<PathBuf>,
    pub threads: Option<usize>,
    pub allow_unsandboxed: bool,
    pub fetch_allow: Vec<IpNet>,
}

/// The node's TOML file. Everything is optional.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeFile {
    /// 1 to 63 of `a-z0-9-`. Default: the machine's host name.
    pub name: Option<String>,
    /// 1 to 63 bytes. Default: `local`.
    pub region: Option<String>,
    /// A folder. No default: the file or `--data` must say it.
    pub data: Option<PathBuf>,
    /// `ADDR:PORT`. Default: no https.
    pub https: Option<SocketAddr>,
    /// `ADDR:PORT`. Default: no cleartext.
    pub http: Option<SocketAddr>,
    /// `ADDR:PORT`. Default `127.0.0.1:0`; a port that the kernel chose is printed at start. It has no authentication: keep it private.
    pub admin: Option<SocketAddr>,
    /// `IP:PORT` at which other nodes reach this one. Default: none, nobody asks it.
    pub peer: Option<SocketAddr>,
    /// `[[certificate]]`, 0 to 1,000. Default: none, the local authority makes what is needed.
    pub certificate: Vec<CertificateFiles>,
    /// The registry's URL. Default: none, the node serves what it last ran.
    pub origin: Option<String>,
    /// Needed with `origin` until the node has joined.
    pub token_file: Option<PathBuf>,
    /// `ADDR:PORT` of name servers, 0 to 8. Default: those of `/etc/resolv.conf`.
    pub resolver: Vec<SocketAddr>,
    /// Networks (`10.0.0.0/8`) of proxies whose forwarding fields are believed; also exempt from the bound of connections of one address.
    /// 0 to 1,000. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// Milliseconds. Default 10,000; 0 (cancel at once) to 3,600,000.
    pub drain_timeout_ms: Option<u64>,
    /// What workers' own requests may reach.
    pub fetch: FetchSection,
    /// The cache.
    pub cache: CacheSection,
    /// Upstreams.
    pub upstream: UpstreamSection,
    /// Runner processes.
    pub runner: RunnerSection,
    /// Bounds of the listeners; see [`Limits`].
    pub limits: Limits,
}

/// `[fetch]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FetchSection {
    /// Networks that a worker's `fetch()` may reach beside public addresses, such as `10.0.0.0/8`. 0 to 1,000. Default: none.
    pub allow: Vec<IpNet>,
}

/// `[cache]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheSection {
    /// Bytes of all entries in memory. Default 268,435,456 (256 MiB); 0 (nothing is stored) to 2^40.
    pub memory_bytes: Option<u64>,
    /// Bytes of the cache's files. Default 1,073,741,824 (1 GiB); 0 (no disk is used), or 33,554,432 (32 MiB) to 8,796,093,022,208 (8 TiB).
    pub disk_bytes: Option<u64>,
    /// Their folder, this node's alone. Default: `cache` in the data folder.
    pub disk_folder: Option<PathBuf>,
}

/// `[upstream]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamSection {
    /// PEM files with authorities for upstreams' certificates, beside the public ones. 0 to 100. Default: none.
    pub authorities: Vec<PathBuf>,
}

/// `[runner]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunnerSection {
    /// JavaScript threads of each runner. Default: one for each processor, 64 at most; 1 to 64.
    pub threads: Option<usize>,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {reason}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// The file is not TOML, or has a key or value that is not known.
    #[error("{}: {reason}", file.display())]
    Parse {
        /// The file.
        file: PathBuf,
        /// Names the key and the line.
        reason: String,
    },
    /// Neither the command line nor the file says what must be said.
    #[error("{0}")]
    Missing(String),
    /// A value cannot be used.
    #[error("{key}: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// Why.
        reason: String,
    },
}

/// A file with every key, its unit, default and extremes: what `selvedge edge` takes by `--config`.
pub const EXAMPLE: &str = include_str!("../node.toml");

const DATA_MISSING: &str = "say --data DIR (or data in the file of --config): the folder for the node's state";
const ORIGIN_MISSING: &str = "say --origin URL (or origin in the file of --config): the token file is for joining a registry";
const TOKEN_MISSING: &str = "say --token-file FILE (or token_file in the file of --config): a node joins its registry with the node.token that `selvedge origin` \
    has written and names when it starts; one that has joined before needs none";

/// Largest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl NodeFile {
    /// Reads a file.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let read = |reason| ConfigError::Read { file: file.to_owned(), reason };
        if std::fs::metadata(file).map_err(read)?.len() > FILE_BYTES_MAX {
            return Err(read(std::io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes"))));
        }
        let text = std::fs::read_to_string(file).map_err(read)?;
        let parse = |reason: String| ConfigError::Parse { file: file.to_owned(), reason };
        let document = toml::Deserializer::parse(&text).map_err(|error| parse(error.to_string()))?;
        serde_path_to_error::deserialize(document).map_err(|error| {
            let (path, reason) = (error.path().to_string(), error.into_inner().to_string());
            parse(if path == "." { reason } else { format!("{path}: {reason}") })
        })
    }
}

impl NodeConfig {
    /// Merges the command line, the file it names, and defaults.
    pub fn load(flags: Flags, file: Option<&Path>) -> Result<Self, ConfigError> {
        let file = file.map(NodeFile::read).transpose()?.unwrap_or_default();
        let value = |key, reason: String| ConfigError::Value { key, reason };
        let name = flags.name.or(file.name).unwrap_or_else(host_name);
        let url = flags.origin.or(file.origin);
        let token_file = flags.token_file.or(file.token_file);
        let data = flags.data.or(file.data).ok_or_else(|| ConfigError::Missing(DATA_MISSING.into()))?;
        let origin = match (url, token_file) {
            (Some(_), None) if !crate::deployments::has_joined(&data) => {
                return Err(ConfigError::Missing(format!("{TOKEN_MISSING} (nobody has joined from {})", data.display())));
            }
            (Some(url), token_file) => Some(OriginConfig { url, token_file }),
            (None, Some(_)) => return Err(ConfigError::Missing(ORIGIN_MISSING.into())),
            (None, None) => None,
        };
        let executable = std::env::current_exe().map_err(|error| value("runner", format!("own executable: {error}")))?;
        let config = Self {
            name: name.parse::<NodeName>().map_err(|error| value("name", error.to_string()))?,
            region: flags.region.or(file.region).unwrap_or_else(|| "local".into()),
            data: data.clone(),
            https: flags.https.or(file.https),
            http: flags.http.or(file.http),
            admin: Some(flags.admin.or(file.admin).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))),
            peer: flags.peer.or(file.peer),
            certificates: if flags.certificates.is_empty() { file.certificate } else { flags.certificates },
            origin,
            runner: RunnerConfig {
                executable,
                arguments: vec!["runner".into()],
                threads: flags.threads.or(file.runner.threads).unwrap_or_else(processors),
                allow_unsandboxed: flags.allow_unsandboxed,
            },
            resolver: file.resolver,
            fetch_allow: if flags.fetch_allow.is_empty() { file.fetch.allow } else { flags.fetch_allow },
            upstream_authorities: file.upstream.authorities,
            trusted_proxies: file.trusted_proxies,
            cache_memory_bytes: file.cache.memory_bytes.unwrap_or(256 << 20),
            cache_disk: match file.cache.disk_bytes.unwrap_or(1 << 30) {
                0 => None,
                bytes_max => Some(DiskConfig { folder: file.cache.disk_folder.unwrap_or_else(|| disk::folder(&data)), bytes_max }),
            },
            drain_timeout: Duration::from_millis(file.drain_timeout_ms.unwrap_or(10_000)),
            limits: file.limits,
        };
        config.check()?;
        Ok(config)
    }

    /// Refuses what is outside the documented extremes. Reads certificate files, opens no socket and writes nothing.
    pub fn check(&self) -> Result<(), ConfigError> {
        let within = |key: &'static str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(ConfigError::Value { key, reason: format!("is {value}, must be {low} to {high}") })
        };
        within("region", self.region.len() as u64, 1, 63)?;
        within("certificate", self.certificates.len() as u64, 0, 1_000)?;
        within("resolver", self.resolver.len() as u64, 0, 8)?;
        within("trusted_proxies", self.trusted_proxies.len() as u64, 0, 1_000)?;
        within("fetch.allow", self.fetch_allow.len() as u64, 0, 1_000)?;
        within("upstream.authorities", self.upstream_authorities.len() as u64, 0, 100)?;
        within("runner.threads", self.runner.threads as u64, 1, 64)?;
        within("cache.memory_bytes", self.cache_memory_bytes, 0, 1 << 40)?;
        if let Some(disk) = &self.cache_disk {
            within("cache.disk_bytes", disk.bytes_max, disk::BYTES_MIN, disk::BYTES_MAX)?;
        }
        within("drain_timeout_ms", self.drain_timeout.as_millis() as u64, 0, 3_600_000)?;
        self.limits.check().map_err(|reason| ConfigError::Value { key: "limits", reason })?;
        if self.https.is_none() && self.http.is_none() {
            return Err(ConfigError::Value { key: "https", reason: "neither https nor http has an address: nothing to serve".into() });
        }
        if self.peer.is_some_and(|address| address.ip().is_unspecified()) {
            let reason = "other nodes are told this address: it must be one of this machine that they reach, not all of them".into();
            return Err(ConfigError::Value { key: "peer", reason });
        }
        for files in &self.certificates {
            crate::listen::check_certificate(files)
                .map_err(|error| ConfigError::Value { key: "certificate", reason: error.to_string() })?;
        }
        Ok(())
    }
}

/// The machine's name as far as it can be a node's: the first label, lower case.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::env::var("HOSTNAME").map_err(std::io::Error::other));
    let name = name.unwrap_or_default().trim().split('.').next().unwrap_or_default().to_ascii_lowercase();
    let name: String = name.chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-').collect();
    if name.is_empty() { "node".into() } else { name }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<NodeConfig, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("node.toml");
        std::fs::write(&file, text).unwrap();
        let flags = Flags { name: Some("node-1".into()), data: Some(folder.path().to_owned()), ..Flags::default() };
        NodeConfig::load(flags, Some(&file)).map_err(|error| error.to_string().replace(&*file.to_string_lossy(), "FILE"))
    }

    #[test]
    fn a_file_may_say_all() {
        let config = load(
            r#"
            region = "test"
            https = "127.0.0.1:8443"
            origin = "http://127.0.0.1:7000"
            token_file = "node.token"
            resolver = ["127.0.0.1:53"]
            trusted_proxies = ["10.0.0.0/8"]
            drain_timeout_ms = 5
            [fetch]
            allow = ["192.168.0.0/16", "fd00::/8"]
            [cache]
            memory_bytes = 1024
            [runner]
            threads = 3
            [limits]
            idle_timeout_ms = 1000
            "#,
        )
        .unwrap();
        assert_eq!(config.fetch_allow.len(), 2);
        assert_eq!(config.drain_timeout, Duration::from_millis(5));
        assert_eq!(config.limits.idle_timeout_ms, 1000);
        assert_eq!(config.limits.connections_max, Limits::default().connections_max);
        assert_eq!((config.runner.threads, config.cache_memory_bytes), (3, 1024));
        assert_eq!(config.admin, Some("127.0.0.1:0".parse().unwrap()));
    }

    #[test]
    fn the_example_has_every_key_with_its_default() {
        // Keys without a default stand there as comments that could be used.
        let used: String = EXAMPLE.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line).to_owned() + "\n").collect();
        let file: NodeFile = toml::from_str(&used).unwrap();
        assert_eq!(file.limits, Limits::default());
        let mut plain = load(&format!("http = \"127.0.0.1:80\"\n{}", EXAMPLE.replace("http = ", "#"))).unwrap();
        let default = load("http = \"127.0.0.1:80\"\n").unwrap();
        (plain.data, plain.runner.threads) = (default.data.clone(), default.runner.threads);
        // It lies in the data folder.
        plain.cache_disk.clone_from(&default.cache_disk);
        assert_eq!(format!("{plain:?}"), format!("{default:?}"));
        for key in [
            "name",
            "region",
            "data",
            "https",
            "http",
            "admin",
            "peer",
            "origin",
            "token_file",
            "resolver",
            "trusted_proxies",
            "drain_timeout_ms",
        ] {
            assert!(used.lines().any(|line| line.starts_with(&format!("{key} = "))), "{key}");
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_file() {
        let error = load("http = \"127.0.0.1:0\"\nlisten = 3\n").unwrap_err();
        assert!(error.starts_with("FILE: ") && error.contains("`listen`"), "{error}");
        let error = load("http = \"127.0.0.1:0\"\n[limits]\nconnections = 3\n").unwrap_err();
        assert!(error.starts_with("FILE: limits") && error.contains("`connections`"), "{error}");
    }

    #[test]
    fn a_wrong_value_is_named_with_its_key() {
        let error = load("http = \"127.0.0.1:0\"\n[fetch]\nallow = [\"10.0.0.0/99\"]\n").unwrap_err();
        assert!(error.contains("fetch.allow[0]"), "{error}");
        for (text, key) in [
            ("[limits]\nidle_timeout_ms = 1\n", "limits.idle_timeout_ms"),
            ("[runner]\nthreads = 65\n", "runner.threads"),
            ("[cache]\nmemory_bytes = 9007199254740992\n", "cache.memory_bytes"),
            ("[cache]\ndisk_bytes = 1\n", "cache.disk_bytes"),
        ] {
            let error = load(&format!("http = \"127.0.0.1:0\"\n{text}")).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn a_node_must_serve_something_and_find_its_registry() {
        assert!(load("").unwrap_err().contains("nothing to serve"));
        assert!(load("http = \"127.0.0.1:0\"\npeer = \"0.0.0.0:7444\"\n").unwrap_err().starts_with("peer: "));
        assert!(load("http = \"127.0.0.1:0\"\ntoken_file = \"node.token\"\n").unwrap_err().contains("--origin"));
    }

    #[test]
    fn a_node_needs_a_token_file_until_it_has_joined() {
        let folder = tempfile::tempdir().unwrap();
        let flags = || Flags {
            name: Some("node-1".into()),
            data: Some(folder.path().to_owned()),
            http: Some("127.0.0.1:0".parse().unwrap()),
            origin: Some("http://127.0.0.1:1".into()),
            ..Flags::default()
        };
        let refused = NodeConfig::load(flags(), None).unwrap_err();
        assert!(
            matches!(&refused, ConfigError::Missing(said) if said.contains("--token-file") && said.contains("node.token")),
            "{refused}"
        );
        std::fs::write(folder.path().join("node.json"), "{}").unwrap();
        let joined = NodeConfig::load(flags(), None).unwrap().origin.unwrap();
        assert_eq!((joined.url.as_str(), joined.token_file), ("http://127.0.0.1:1", None));
        let nowhere = NodeConfig::load(Flags { data: None, ..flags() }, None).unwrap_err();
        assert!(matches!(&nowhere, ConfigError::Missing(said) if said.contains("--data")), "{nowhere}");
    }

    #[test]
    fn flags_win_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("node.toml");
        std::fs::write(&file, "http = \"127.0.0.1:80\"\nregion = \"file\"\n").unwrap();
        let flags =
            Flags { name: Some("node-1".into()), data: Some(folder.path().to_owned()), region: Some("flag".into()), ..Flags::default() };
        let config = NodeConfig::load(flags, Some(&file)).unwrap();
        assert_eq!((config.region.as_str(), config.http), ("flag", Some("127.0.0.1:80".parse().unwrap())));
    }
}
