//! The invariants of the code map, checked on the source itself. Each check names the file and line that breaks it.

mod source;

use source::{Source, Violations};

#[test]
fn every_file_says_what_it_is_for() {
    let mut broken = Violations::new("begins with a //! line that says what the file is for");
    for file in Source::all() {
        if !file.text.starts_with("//!") {
            broken.add(&file, 1);
        }
    }
    broken.none();
}

#[test]
fn no_file_holds_two_ideas() {
    const LINES_MAX: usize = 500;
    const VAGUE: [&str; 8] = ["utils", "util", "common", "helpers", "misc", "types", "ext", "core"];
    let mut broken = Violations::new("is at most 500 lines long and has a name that says something");
    for file in Source::all() {
        let stem = file.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if file.text.lines().count() > LINES_MAX || VAGUE.contains(&stem) {
            broken.add(&file, 1);
        }
    }
    broken.none();
}

#[test]
fn every_function_fits_on_a_screen() {
    const LINES_MAX: usize = 70;
    let mut broken = Violations::new("has functions of at most 70 lines");
    for file in Source::all() {
        for line in file.long_functions(LINES_MAX) {
            broken.add(&file, line);
        }
    }
    broken.none();
}

#[test]
fn only_the_runner_depends_on_v8() {
    let mut broken = Violations::new("does not depend on the engine: only runtime/runner does");
    for manifest in Source::manifests() {
        if manifest.is("runtime/runner/Cargo.toml") || manifest.is("Cargo.toml") {
            continue;
        }
        broken.lines(&manifest, |line| line.starts_with("deno_") || line.starts_with("v8 ") || line.starts_with("v8."));
        // Only the binary links the runner, so cargo itself keeps V8 out of the edge.
        if !manifest.is("deploy/Cargo.toml") {
            broken.lines(&manifest, |line| line.starts_with("selvedge-runner"));
        }
    }
    broken.none();
}

#[test]
fn the_runtime_and_the_origin_are_leaves() {
    let mut broken = Violations::new("depends on no other part of the product");
    for manifest in Source::manifests() {
        if manifest.is("runtime/Cargo.toml") || manifest.is("origin/Cargo.toml") {
            broken.lines(&manifest, |line| line.starts_with("selvedge-"));
        }
    }
    broken.none();
}

#[test]
fn each_library_of_the_outside_has_one_door() {
    let doors = [
        ("edge-node/src/", "quinn::", "edge-node/src/listen/quic"),
        ("edge-node/src/", "h3::", "edge-node/src/listen/quic"),
        ("edge-node/src/", "moka::", "edge-node/src/cache/memory.rs"),
        ("edge-node/src/", "hickory_resolver::", "edge-node/src/upstream/resolve.rs"),
        ("origin/src/", "rusqlite::", "origin/src/store/"),
        ("runtime/src/", "deno_core", "nowhere"),
    ];
    for (tree, name, door) in doors {
        let mut broken = Violations::new(&format!("does not use {name}, whose only door is {door}"));
        for file in Source::all().into_iter().filter(|file| file.under(tree) && !file.under(door)) {
            broken.lines(&file, |line| source::names(line, name));
        }
        broken.none();
    }
}

#[test]
fn rules_are_pure() {
    const PURE: [&str; 12] = [
        "edge-node/src/cache/key.rs",
        "edge-node/src/cache/control.rs",
        "edge-node/src/cache/policy.rs",
        "edge-node/src/cache/freshness.rs",
        "edge-node/src/cache/validate.rs",
        "edge-node/src/cache/vary.rs",
        "edge-node/src/cache/range.rs",
        "edge-node/src/deployments/plan.rs",
        "edge-node/src/routes.rs",
        "edge-node/src/upstream/policy.rs",
        "origin/src/registry/",
        "origin/src/bundle/",
    ];
    const IMPURE: [&str; 8] =
        ["RandomState", "async fn", ".await", "SystemTime::now", "Instant::now", "std::fs", "tokio::", "std::net::Tcp"];
    let mut broken = Violations::new("is pure: data and now in, a verdict out; no async, no clock, no chance, no I/O");
    for file in Source::all().into_iter().filter(|file| PURE.iter().any(|path| file.under(path))) {
        broken.lines(&file, |line| IMPURE.iter().any(|word| line.contains(word)));
    }
    broken.none();
}

#[test]
fn one_file_spawns_and_one_reads_the_environment() {
    let mut broken = Violations::new("spawns no task of its own: edge-node/src/tasks.rs does");
    for file in Source::all().into_iter().filter(|file| file.under("edge-node/src/") && !file.is("edge-node/src/tasks.rs")) {
        broken.lines(&file, |line| line.contains("tokio::spawn(") || line.contains("thread::spawn("));
    }
    broken.none();
    let mut broken = Violations::new("does not read the environment: edge-node/src/config.rs does");
    for file in Source::all().into_iter().filter(|file| file.under("edge-node/src/") && !file.is("edge-node/src/config.rs")) {
        broken.lines(&file, |line| line.contains("env::var"));
    }
    broken.none();
}

#[test]
fn one_file_chooses_the_status_of_an_error() {
    let mut broken = Violations::new("chooses no status for an error: edge-node/src/request/respond.rs does");
    for file in Source::all() {
        if file.under("edge-node/src/request/") && !file.is("edge-node/src/request/respond.rs") {
            broken.lines(&file, |line| {
                line.contains("StatusCode::BAD_") || line.contains("StatusCode::INTERNAL") || line.contains("StatusCode::SERVICE")
            });
        }
    }
    broken.none();
}

#[test]
fn no_bound_is_hidden_in_a_function() {
    let mut broken = Violations::new("hides no bound in a function: its place is a limits.rs, or the head of the one file that it bounds");
    for file in Source::all() {
        broken.inner_lines(&file, |line| {
            let name = line.strip_prefix("const ").and_then(|line| line.split_once(':'));
            name.is_some_and(|(name, _)| ["_MAX", "_WAIT", "_TIMEOUT"].iter().any(|end| name.ends_with(end)))
        });
    }
    broken.none();
}

#[test]
fn nothing_is_left_for_later() {
    let words = ["todo!(", "unimplemented!(", "TODO", "FIXME", "XXX"];
    let mut broken = Violations::new("leaves nothing for later");
    for file in Source::all().into_iter().filter(|file| !file.under("tests/tidy/")) {
        broken.lines(&file, |line| words.iter().any(|word| line.contains(word)));
    }
    broken.none();
}

#[test]
fn the_caches_reference_names_all_that_it_can_say_and_be_told() {
    use selvedge_edge::cache::policy::Refusal;
    use selvedge_edge::cache::status::{Detail, Forward};
    let page = include_str!("../../edge-node/CACHE.md");
    let settings = serde_json::to_value(selvedge_origin::registry::CacheSettings::default()).expect("settings are JSON");
    let compress = serde_json::to_value(selvedge_origin::registry::CompressSettings::default()).expect("settings are JSON");
    let keys = [&settings, &compress].into_iter().flat_map(|table| table.as_object().expect("settings are a table").keys().cloned());
    let route: selvedge_origin::api::wire::RouteSpec =
        serde_json::from_value(serde_json::json!({ "pattern": "a.org/*" })).expect("a route");
    let of_route = serde_json::to_value(route).expect("a route is JSON").as_object().expect("a table").keys().cloned().collect::<Vec<_>>();
    let of_upstream = names(&serde_json::to_value(whole_upstream()).expect("an upstream is JSON"));
    let keys = keys.chain(of_route).chain(of_upstream);
    let refusals = Refusal::ALL.iter().map(|refusal| refusal.name().to_owned());
    let details = Detail::ALL.iter().map(|detail| detail.name().to_owned());
    let reasons = Forward::ALL.iter().map(|forward| forward.name().to_owned());
    let missing: Vec<String> =
        keys.chain(refusals).chain(details).chain(reasons).filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "edge-node/CACHE.md does not name {missing:?}");
}

/// The keys of a table: those of the tables in it after a dot, those of what is listed in it as they are.
fn names(table: &serde_json::Value) -> Vec<String> {
    use serde_json::Value;
    let of = |(key, value): (&String, &Value)| match value {
        Value::Object(inner) => inner.keys().map(|under| format!("{key}.{under}")).collect(),
        Value::Array(list) => list.iter().flat_map(names).chain([key.clone()]).collect(),
        _ => vec![key.clone()],
    };
    table.as_object().into_iter().flatten().flat_map(of).collect()
}

/// An upstream that says everything.
fn whole_upstream() -> selvedge_origin::registry::Upstream {
    use selvedge_origin::registry::{Ejection, HealthCheck, KeepAlive, Protocol, Retries, Server, Upstream};
    let (text, number) = (|| Some("x".to_owned()), Some(1));
    Upstream {
        name: text(),
        servers: vec![Server { address: "http://a.org".to_owned(), weight: 2, backup: true }],
        protocol: Protocol::H1,
        host: text(),
        server_name: text(),
        authority: text(),
        requests_max: number,
        queue_max: number,
        queue_wait_ms: number,
        connect_timeout_ms: number,
        head_timeout_ms: number,
        body_idle_timeout_ms: number,
        keep_alive: KeepAlive { idle_ms: number, requests_max: number },
        health: Some(HealthCheck::default()),
        ejection: Ejection { failures: 1, ms: 1 },
        retries: Retries { max: 1, ..Retries::default() },
    }
}

#[test]
fn each_attack_on_the_cache_has_a_test_that_is_there() {
    let page = include_str!("../../edge-node/CACHE.md");
    let (_, table) = page.split_once("## What attackers try").expect("the section");
    let rows = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1).take_while(|line| line.starts_with('|'));
    let files = Source::all();
    let is_there = |name: &str| files.iter().any(|file| file.text.contains(&format!("fn {name}(")));
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().expect("a last column");
        let names: Vec<&str> = tests.split(", ").map(|name| name.trim_matches('`')).collect();
        let missing: Vec<&&str> = names.iter().filter(|name| name.is_empty() || !is_there(name)).collect();
        assert!(missing.is_empty(), "no such test: {missing:?} of {row}");
    }
}
