//! What holds line by line: where each rule applies, which lines break it, which files are excepted and why, and lines that must be found.

use crate::source::{Source, Violations, names};

/// One rule about lines of code.
pub(crate) struct Check {
    /// Reads "every file …".
    pub(crate) rule: &'static str,
    /// Where it applies: beginnings of paths.
    trees: &'static [&'static str],
    /// Where it does not: beginnings or ends of paths, a part of the lines that are meant, and the reason.
    except: &'static [(&'static str, &'static str, &'static str)],
    /// Whether a line breaks it.
    breaks: fn(&str) -> bool,
    /// A file, and lines each of which would break the rule there.
    planted: (&'static str, &'static [&'static str]),
}

const EDGE: &str = "edge-node/src/";
const PRODUCT: &[&str] = &[EDGE, "origin/src/", "runtime/src/", "runtime/runner/src/", "deploy/src/"];
/// What answers requests.
const REQUEST_PATH: &[&str] = &[
    "edge-node/src/request/",
    "edge-node/src/listen/",
    "edge-node/src/cache/",
    "edge-node/src/upstream/",
    "edge-node/src/peers/",
    "edge-node/src/workers/",
    "edge-node/src/routes",
];

/// Each library of the outside has one door.
pub(crate) const DOORS: &[Check] = &[
    Check {
        rule: "leaves QUIC and HTTP/3 to edge-node/src/listen/quic",
        trees: &[EDGE, "origin/src/", "runtime/"],
        except: &[("edge-node/src/listen/quic", "", "the door")],
        breaks: |line| ["quinn", "quinn_proto", "quinn_udp", "h3", "h3_quinn"].iter().any(|name| uses(line, name)),
        planted: ("edge-node/src/listen/tcp.rs", &["let c = h3_quinn::Connection::new(q);", "use quinn::Endpoint;", "use h3 as x;"]),
    },
    Check {
        rule: "leaves moka to edge-node/src/cache/memory.rs",
        trees: PRODUCT,
        except: &[("edge-node/src/cache/memory.rs", "", "the door")],
        breaks: |line| uses(line, "moka"),
        planted: ("edge-node/src/cache/mod.rs", &["use moka::sync::Cache;"]),
    },
    Check {
        rule: "leaves hickory to edge-node/src/upstream/resolve.rs",
        trees: PRODUCT,
        except: &[("edge-node/src/upstream/resolve.rs", "", "the door")],
        breaks: |line| ["hickory_resolver", "hickory_proto"].iter().any(|name| uses(line, name)),
        planted: ("edge-node/src/upstream/connect.rs", &["use hickory_proto::rr::Name;", "hickory_resolver::Resolver::new()"]),
    },
    Check {
        rule: "leaves the database to origin/src/store/",
        trees: PRODUCT,
        except: &[("origin/src/store/", "", "the door")],
        breaks: |line| uses(line, "rusqlite"),
        planted: ("origin/src/api/mod.rs", &["use rusqlite::Connection;"]),
    },
    Check {
        rule: "leaves the engine to runtime/runner",
        trees: &[EDGE, "origin/src/", "runtime/src/", "deploy/src/", "tests/"],
        except: &[("tests/tidy/", "", "names it")],
        breaks: |line| ["deno_core", "deno_web", "deno_crypto", "serde_v8", "v8"].iter().any(|name| uses(line, name)),
        planted: ("runtime/src/host.rs", &["use deno_core::v8;", "v8::V8::initialize();"]),
    },
];

/// Rules are pure.
pub(crate) const PURE: &[Check] = &[Check {
    rule: "is pure: data and now in, a verdict out; no async, no clock, no chance, no I/O",
    trees: &[
        "edge-node/src/cache/key.rs",
        "edge-node/src/cache/control.rs",
        "edge-node/src/cache/policy.rs",
        "edge-node/src/cache/freshness.rs",
        "edge-node/src/cache/validate.rs",
        "edge-node/src/cache/vary.rs",
        "edge-node/src/cache/range.rs",
        "edge-node/src/cache/surrogate.rs",
        "edge-node/src/cache/deception.rs",
        "edge-node/src/cache/negotiate.rs",
        "edge-node/src/cache/query.rs",
        "edge-node/src/cache/part.rs",
        "edge-node/src/cache/slice.rs",
        "edge-node/src/cache/tags.rs",
        "edge-node/src/cache/coding.rs",
        "edge-node/src/cache/status.rs",
        "edge-node/src/cache/date.rs",
        "edge-node/src/deployments/plan.rs",
        "edge-node/src/listen/check.rs",
        "edge-node/src/peers/choose.rs",
        "edge-node/src/routes",
        "edge-node/src/upstream/policy.rs",
        "origin/src/registry/",
        "origin/src/bundle/",
    ],
    except: &[],
    breaks: |line| {
        let any = |words: &[&str]| words.iter().any(|word| names(line, word));
        line.contains(".await")
            || any(&[
                "async ",
                "SystemTime",
                "Instant",
                "RandomState",
                "fs::",
                "File::",
                "OpenOptions",
                "tokio::",
                "env::",
                "thread::",
                "process::",
            ])
            || any(&["TcpStream", "TcpListener", "UdpSocket", "UnixStream", "Mutex", "RwLock", "println!", "eprintln!"])
    },
    planted: (
        "edge-node/src/routes/paths.rs",
        &[
            "pub async fn load() {",
            "let now = SystemTime::now();",
            "let text = std::fs::read(path);",
            "reply.await",
            "use std::time::Instant;",
        ],
    ),
}];

/// One file of each crate spawns.
pub(crate) const SPAWNS: &[Check] = &[Check {
    rule: "starts no task or thread of its own: its crate's tasks.rs does",
    trees: &[EDGE, "runtime/src/", "runtime/runner/src/"],
    except: &[
        ("edge-node/src/tasks.rs", "", "the file that does"),
        ("runtime/src/supervisor/tasks.rs", "", "the file that does"),
        ("runtime/runner/src/run.rs", "::Builder::new", "the threads that JavaScript runs on, and their loops"),
    ],
    breaks: |line| {
        let starts = ["tokio::spawn", "task::spawn(", "task::spawn;", "spawn_local", "thread::spawn", "thread::scope", "JoinSet"];
        let makes =
            ["TaskTracker", "LocalSet", "Handle::current", "Handle::try_current", "runtime::Builder", "Runtime::new", "thread::Builder"];
        starts.iter().chain(&makes).any(|word| names(line, word))
    },
    planted: (
        "edge-node/src/admin/mod.rs",
        &[
            "tokio::spawn(async {});",
            "tokio::task::spawn(work);",
            "std::thread::Builder::new()",
            "let mut all = JoinSet::new();",
            "task::spawn_local(f)",
        ],
    ),
}];

/// One file of the edge reads the environment, and none of what it is made of.
pub(crate) const ENVIRONMENT: &[Check] = &[Check {
    rule: "does not read the environment: edge-node/src/config.rs does",
    trees: &[EDGE, "origin/src/", "runtime/src/", "runtime/runner/src/"],
    except: &[
        ("edge-node/src/config.rs", "", "the file that does"),
        ("runtime/runner/src/sandbox/filter.rs", "env::consts", "what this was built for is no environment"),
    ],
    breaks: |line| names(line, "env::"),
    planted: ("edge-node/src/node.rs", &["std::env::var(\"HOME\")", "env::vars_os()", "let mut words = std::env::args();"]),
}];

/// One file chooses the status of an error.
pub(crate) const STATUSES: &[Check] = &[Check {
    rule: "chooses no status for an error: edge-node/src/request/respond.rs does",
    trees: &[EDGE],
    except: &[
        ("edge-node/src/request/respond.rs", "", "the file that does"),
        ("edge-node/src/admin/mod.rs", "text(StatusCode::", "the operator's own listener: probes want a bare status, and no Proxy-Status"),
        ("edge-node/src/request/partial.rs", "StatusCode::RANGE_NOT_SATISFIABLE", "reads what an upstream answered"),
        ("edge-node/src/cache/policy.rs", "StatusCode::RANGE_NOT_SATISFIABLE", "reads what an upstream answered"),
        ("edge-node/src/cache/coding.rs", "StatusCode::RANGE_NOT_SATISFIABLE", "reads what an upstream answered"),
        ("edge-node/src/cache/disk/encode.rs", "StatusCode::from_u16", "reads what was stored"),
    ],
    breaks: is_error_status,
    planted: (
        "edge-node/src/listen/tcp.rs",
        &[
            "StatusCode::NOT_FOUND",
            "http::StatusCode::GATEWAY_TIMEOUT,",
            "let s = StatusCode::PAYLOAD_TOO_LARGE;",
            "StatusCode::from_u16(502)",
            "Response::builder().status(404)",
            "use http::StatusCode as S;",
        ],
    ),
}];

/// The request path never waits for the registry, nor an async thread for a disk.
pub(crate) const WAITS: &[Check] = &[
    Check {
        rule: "knows nothing of the registry's client and follower: the request path never waits for the registry",
        trees: REQUEST_PATH,
        except: &[
            (
                "edge-node/src/request/mod.rs",
                "use crate::deployments::{Contact, Purger};",
                "how long it is away, and purges that a worker awaits",
            ),
            ("edge-node/src/request/explain/mod.rs", "use crate::deployments::Knows;", "what the follower knows already"),
            ("edge-node/src/peers/mod.rs", "use selvedge_origin::client::NodeIdentity;", "the key that a node shows its peers, too"),
        ],
        breaks: |line| ["selvedge_origin::client", "selvedge_origin::Client", "deployments::"].iter().any(|name| line.contains(name)),
        planted: (
            "edge-node/src/request/lookup.rs",
            &[
                "use selvedge_origin::client::Client;",
                "crate::deployments::follow::now().await",
                "use crate::deployments::{Contact, Purger, Follower};",
            ],
        ),
    },
    Check {
        rule: "does not touch a disk: cache/disk/ does, on threads of its own",
        trees: &[
            "edge-node/src/request/",
            "edge-node/src/listen/",
            "edge-node/src/cache/",
            "edge-node/src/upstream/",
            "edge-node/src/peers/",
            "edge-node/src/workers/",
            "edge-node/src/routes",
            "edge-node/src/admin/",
            "edge-node/src/metrics",
        ],
        except: &[
            ("edge-node/src/cache/disk/", "", "the place that does"),
            ("edge-node/src/listen/authority.rs", "fs::", "at start, before anything listens"),
            ("edge-node/src/listen/tls.rs", "fs::", "certificates: at start, and on a blocking thread when they change"),
        ],
        breaks: |line| ["fs::", "File::", "OpenOptions"].iter().any(|name| names(line, name)),
        planted: ("edge-node/src/request/store.rs", &["std::fs::write(path, bytes)?;", "tokio::fs::read(path).await", "File::open(path)"]),
    },
];

/// A worker reaches the outside only through its host.
pub(crate) const OUTSIDE: &[Check] = &[
    Check {
        rule: "opens no file and no connection: a worker reaches the outside only through runtime/src/host.rs",
        trees: &["runtime/src/", "runtime/runner/src/"],
        except: &[
            ("runtime/src/protocol/board.rs", "rustix::fs::", "memory that edge and runner share, sealed"),
            ("runtime/src/supervisor/", "std::fs::", "starts runners and looks at their processes; no worker's code runs here"),
            ("runtime/src/supervisor/cgroup.rs", "rustix::fs::getxattr", "looks for systemd's mark on the cgroup of the edge"),
            ("runtime/src/supervisor/socket.rs", "", "makes the sockets between edge and runner, and is the edge's end of them"),
            ("runtime/runner/src/link.rs", "rustix::net::", "the runner's end of them"),
            ("runtime/runner/src/memory.rs", "std::fs::File", "opened before the sandbox closes"),
            ("runtime/runner/src/sandbox/", "", "takes them all away, and proves it"),
        ],
        breaks: |line| {
            let paths =
                ["std::net", "tokio::net", "rustix::net", "std::fs", "tokio::fs", "rustix::fs", "hyper::", "rustls::", "Command::new"];
            let types = ["TcpStream", "UdpSocket", "UnixStream", "UnixDatagram"];
            paths.iter().chain(&types).any(|name| names(line, name))
        },
        planted: (
            "runtime/runner/src/ops/body.rs",
            &["let s = tokio::net::TcpStream::connect(to);", "std::fs::read(path)", "use std::net::UdpSocket;", "Command::new(\"sh\")"],
        ),
    },
    Check {
        rule: "gives workers no host of its own: edge-node/src/workers/host.rs does",
        trees: &[EDGE, "runtime/src/", "deploy/src/"],
        except: &[("edge-node/src/workers/host.rs", "", "the one")],
        breaks: |line| line.starts_with("impl") && line.contains("Host for "),
        planted: ("edge-node/src/request/execute.rs", &["impl Host for Other {", "impl<T> selvedge_runtime::Host for Wide<T> {"]),
    },
    Check {
        rule: "has no ops: runtime/runner/src/ops/ has them all",
        trees: &["runtime/"],
        except: &[("runtime/runner/src/ops/", "", "the place")],
        breaks: |line| names(line, "op2") || line.contains("deno_core::extension!"),
        planted: ("runtime/runner/src/isolate/mod.rs", &["#[op2(fast)]", "deno_core::extension!(more, ops = []);"]),
    },
];

/// Every queue and wait has a bound with a name.
pub(crate) const BOUNDS: &[Check] = &[Check {
    rule: "bounds its queues and waits by names of a limits.rs",
    trees: &[EDGE, "origin/src/", "runtime/src/", "runtime/runner/src/"],
    except: &[
        ("/limits.rs", "", "where the names are"),
        ("edge-node/src/limits/", "", "where those of the cache are"),
        ("edge-node/src/listen/authority.rs", ": Duration =", "how long certificates are valid: nothing waits for it"),
        ("origin/src/tls/own.rs", ": Duration =", "how long certificates are valid: nothing waits for it"),
        ("runtime/src/supervisor/priority.rs", "mpsc::channel()", "one answer of one thread"),
        ("runtime/runner/src/run.rs", "mpsc::channel()", "one word to each thread, and one back, at start"),
    ],
    breaks: |line| {
        let unbounded = ["unbounded_channel", "unbounded()", "mpsc::channel()"].iter().any(|name| names(line, name));
        let literal = ["channel(", "Semaphore::new(", "Duration::from_secs(", "Duration::from_millis(", "Duration::from_micros("];
        unbounded || literal.iter().any(|call| followed_by_a_number(line, call))
    },
    planted: (
        "edge-node/src/request/store.rs",
        &[
            "let (tx, rx) = mpsc::unbounded_channel();",
            "mpsc::channel(16)",
            "Semaphore::new(8)",
            "sleep(Duration::from_millis(50))",
            "std::sync::mpsc::channel();",
        ],
    ),
}];

/// All of them, for the test of the checks themselves.
pub(crate) const ALL: [&[Check]; 8] = [DOORS, PURE, SPAWNS, ENVIRONMENT, STATUSES, WAITS, OUTSIDE, BOUNDS];

impl Check {
    /// What breaks it in these files.
    pub(crate) fn of(&self, files: &[Source]) -> Violations {
        let mut broken = Violations::new(self.rule);
        for file in files.iter().filter(|file| self.trees.iter().any(|tree| file.under(tree))) {
            for (number, line) in file.code().filter(|(_, line)| (self.breaks)(line)) {
                if !self.exceptions(file).any(|part| line.contains(part)) {
                    broken.add(file, number);
                }
            }
        }
        broken
    }

    /// Parts of lines that this file may have all the same.
    fn exceptions(&self, file: &Source) -> impl Iterator<Item = &'static str> {
        let path = file.path.to_string_lossy().into_owned();
        self.except.iter().filter(move |(at, _, _)| path.starts_with(at) || path.ends_with(at)).map(|(_, part, _)| *part)
    }

    /// Each planted line is found, in a file that is not excepted, after an item for tests as well as before; and each exception is needed.
    pub(crate) fn is_sharp(&self, files: &[Source]) {
        let (path, lines) = self.planted;
        for line in lines {
            for text in [format!("//! A file.\n{line}\n"), format!("//! A file.\n#[cfg(test)]\nmod tests;\n{line}\n")] {
                let places = self.of(&[Source::planted(path, &text)]).places;
                assert_eq!(places.len(), 1, "a file that breaks \"{}\" by {line} is not found", self.rule);
            }
        }
        for (at, part, why) in self.except {
            let used = files.iter().filter(|file| file.under(at) || file.path.to_string_lossy().ends_with(at));
            let needed = used.flat_map(Source::code).any(|(_, line)| (self.breaks)(line) && line.contains(part));
            assert!(needed, "nothing needs the exception of {at} ({why}) from \"{}\"", self.rule);
        }
    }
}

/// The line uses a crate of this name.
fn uses(line: &str, name: &str) -> bool {
    let whole = |rest: &str| rest.strip_prefix(name).is_some_and(|rest| rest.starts_with([';', ' ']));
    names(line, &format!("{name}::")) || line.strip_prefix("use ").or(line.strip_prefix("extern crate ")).is_some_and(whole)
}

/// The line names a status from 400 up, or makes one of a number, or hides the type behind another name.
fn is_error_status(line: &str) -> bool {
    const FINE: [&str; 15] = [
        "CONTINUE",
        "SWITCHING_PROTOCOLS",
        "EARLY_HINTS",
        "OK",
        "CREATED",
        "ACCEPTED",
        "NO_CONTENT",
        "RESET_CONTENT",
        "PARTIAL_CONTENT",
        "NOT_MODIFIED",
        "MOVED_PERMANENTLY",
        "FOUND",
        "SEE_OTHER",
        "TEMPORARY_REDIRECT",
        "PERMANENT_REDIRECT",
    ];
    let is_error = |rest: &str| {
        let name: String = rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
        rest.starts_with("from_") || !name.is_empty() && !FINE.contains(&name.as_str())
    };
    line.match_indices("StatusCode::").any(|(at, name)| is_error(&line[at + name.len()..]))
        || line.contains("StatusCode as ")
        || followed_by_a_number(line, ".status(")
}

fn followed_by_a_number(line: &str, call: &str) -> bool {
    line.match_indices(call).any(|(at, _)| line[at + call.len()..].starts_with(|c: char| c.is_ascii_digit()))
}
