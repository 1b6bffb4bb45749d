//! The invariants of the code map, checked on the source itself. Each check names the file and line that breaks it, and was seen to: the last
//! tests plant what each must find.

mod checks;
mod source;

use checks::Check;
use source::{Source, Violations, names};

/// All of these hold everywhere.
fn hold(checks: &[Check]) {
    let files = Source::all();
    checks.iter().for_each(|check| check.of(&files).none());
}

#[test]
fn every_file_says_what_it_is_for() {
    unnamed(&Source::all()).none();
}

fn unnamed(files: &[Source]) -> Violations {
    let mut broken = Violations::new("begins with a //! line that says what the file is for");
    files.iter().filter(|file| !file.text.starts_with("//! ")).for_each(|file| broken.add(file, 1));
    broken
}

#[test]
fn no_file_holds_two_ideas() {
    vague(&Source::all()).none();
}

fn vague(files: &[Source]) -> Violations {
    const LINES_MAX: usize = 500;
    const VAGUE: [&str; 9] = ["utils", "util", "common", "helpers", "misc", "types", "ext", "core", "inner"];
    let mut broken = Violations::new("is at most 500 lines long and has a name that says something");
    for file in files {
        let says_nothing = file.path.with_extension("").iter().any(|part| VAGUE.iter().any(|vague| part == *vague));
        if file.text.lines().count() > LINES_MAX || says_nothing {
            broken.add(file, 1);
        }
    }
    broken
}

#[test]
fn every_function_fits_on_a_screen() {
    long(&Source::all()).none();
}

fn long(files: &[Source]) -> Violations {
    const LINES_MAX: usize = 70;
    let mut broken = Violations::new("has functions of at most 70 lines");
    for file in files {
        file.long_functions(LINES_MAX).into_iter().for_each(|line| broken.add(file, line));
    }
    broken
}

#[test]
fn only_the_runner_depends_on_v8() {
    dependent_on_v8(&Source::manifests()).none();
}

fn dependent_on_v8(manifests: &[Source]) -> Violations {
    let mut broken = Violations::new("does not depend on the engine: only runtime/runner does");
    for manifest in manifests.iter().filter(|manifest| !manifest.is("runtime/runner/Cargo.toml") && !manifest.is("Cargo.toml")) {
        // Only the binary links the runner, so cargo itself keeps V8 out of the edge.
        let binary = manifest.is("deploy/Cargo.toml");
        let breaks = |line: &str| {
            ["deno_", "v8", "serde_v8", "rusty_v8"].iter().any(|name| names(line, name)) || !binary && line.contains("selvedge-runner")
        };
        entries(manifest).filter(|(_, line)| breaks(line)).for_each(|(number, _)| broken.add(manifest, number));
    }
    broken
}

#[test]
fn the_runtime_and_the_origin_are_leaves() {
    not_leaves(&Source::manifests()).none();
}

fn not_leaves(manifests: &[Source]) -> Violations {
    let mut broken = Violations::new("depends on no other part of the product");
    for manifest in manifests.iter().filter(|manifest| manifest.is("runtime/Cargo.toml") || manifest.is("origin/Cargo.toml")) {
        let breaks = |line: &str| line.contains("selvedge") && !line.starts_with("name = ");
        entries(manifest).filter(|(_, line)| breaks(line)).for_each(|(number, _)| broken.add(manifest, number));
    }
    broken
}

/// Lines of a manifest that are no comment.
fn entries(manifest: &Source) -> impl Iterator<Item = (usize, &str)> {
    manifest.text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())).filter(|(_, line)| !line.starts_with('#'))
}

#[test]
fn each_library_of_the_outside_has_one_door() {
    hold(checks::DOORS);
}

#[test]
fn rules_are_pure() {
    hold(checks::PURE);
}

#[test]
fn one_file_spawns() {
    hold(checks::SPAWNS);
}

#[test]
fn one_file_reads_the_environment() {
    hold(checks::ENVIRONMENT);
}

#[test]
fn one_file_chooses_the_status_of_an_error() {
    hold(checks::STATUSES);
}

#[test]
fn the_request_path_waits_for_no_registry_and_no_disk() {
    hold(checks::WAITS);
}

#[test]
fn a_worker_reaches_the_outside_only_through_its_host() {
    hold(checks::OUTSIDE);
    unlisted_ops(&Source::all()).none();
}

/// The attack surface is on one screen.
fn unlisted_ops(files: &[Source]) -> Violations {
    let mut broken = Violations::new("has no op that runtime/runner/src/ops/mod.rs does not list");
    let listed =
        |name: &str| files.iter().any(|file| file.is("runtime/runner/src/ops/mod.rs") && file.text.contains(&format!("::{name},")));
    for file in files.iter().filter(|file| file.under("runtime/runner/src/ops/")) {
        let mut is_op = false;
        for (number, line) in file.code() {
            let name = line.split_once("fn ").map(|(_, rest)| rest.split(['(', '<']).next().unwrap_or_default());
            if let Some(name) = name.filter(|_| std::mem::take(&mut is_op))
                && !listed(name)
            {
                broken.add(file, number);
            }
            is_op |= line.starts_with("#[op2");
        }
    }
    broken
}

#[test]
fn every_queue_and_wait_has_a_bound_with_a_name() {
    hold(checks::BOUNDS);
}

#[test]
fn no_bound_is_hidden_in_a_function() {
    hidden_bounds(&Source::all()).none();
}

fn hidden_bounds(files: &[Source]) -> Violations {
    let mut broken = Violations::new("hides no bound in a function: its place is a limits.rs, or the head of the one file that it bounds");
    for file in files.iter().filter(|file| !file.under("tests/")) {
        broken.inner_lines(file, |line| {
            let name = line.strip_prefix("const ").and_then(|line| line.split_once(':'));
            name.is_some_and(|(name, _)| ["_MAX", "_WAIT", "_TIMEOUT"].iter().any(|end| name.ends_with(end)))
        });
    }
    broken
}

#[test]
fn nothing_is_left_for_later() {
    unfinished(&Source::all()).none();
}

fn unfinished(files: &[Source]) -> Violations {
    const WORDS: [&str; 6] = ["todo!", "unimplemented!", "TODO", "FIXME", "XXX", "HACK"];
    let mut broken = Violations::new("leaves nothing for later, in comments and in tests neither");
    for file in files.iter().filter(|file| !file.under("tests/tidy/")) {
        let lines = file.text.lines().enumerate().filter(|(_, line)| WORDS.iter().any(|word| names(line, word)));
        lines.for_each(|(index, _)| broken.add(file, index + 1));
    }
    broken
}

#[test]
fn each_check_finds_what_is_planted_and_each_exception_is_needed() {
    let files = Source::all();
    checks::ALL.into_iter().flatten().for_each(|check| check.is_sharp(&files));
}

#[test]
fn the_checks_of_whole_files_find_what_is_planted() {
    let found = |check: fn(&[Source]) -> Violations, path: &str, text: &str| check(&[Source::planted(path, text)]).places.len() == 1;
    assert!(found(unnamed, "origin/src/a.rs", "use std::fmt;\n"));
    assert!(found(vague, "origin/src/utils/mod.rs", "//! A file.\n"));
    assert!(found(vague, "origin/src/a.rs", &"//! A file.\n".repeat(501)));
    for head in ["fn a() {", "pub const unsafe fn a() {", "pub(in crate::a) async fn a(", "unsafe extern \"C\" fn a() {"] {
        let head = if head.ends_with('(') { format!("{head}\n    b: u8,\n) {{") } else { head.to_owned() };
        assert!(found(long, "origin/src/a.rs", &format!("{head}\n{}}}\n", "    b();\n".repeat(70))), "{head}");
    }
    for line in ["deno_core.workspace = true", "engine = { package = \"v8\" }", "serde_v8 = \"1\"", "selvedge-runner.workspace = true"] {
        assert!(found(dependent_on_v8, "edge-node/Cargo.toml", line), "{line}");
    }
    for line in ["selvedge-origin.workspace = true", "x = { path = \"../a\", package = \"selvedge-edge\" }"] {
        assert!(found(not_leaves, "runtime/Cargo.toml", line), "{line}");
    }
    assert!(found(unlisted_ops, "runtime/runner/src/ops/more.rs", "//! A file.\n#[op2(fast)]\nfn op_more(state: &OpState) {}\n"));
    assert!(found(hidden_bounds, "deploy/src/a.rs", "//! A file.\nfn a() {\n    const REPLY_WAIT: u64 = 5;\n}\n"));
    for line in ["// TODO: more", "todo!()", "/// FIXME"] {
        assert!(found(unfinished, "deploy/src/a.rs", &format!("//! A file.\n{line}\n")), "{line}");
    }
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
    let of_upstream = keys_of(&serde_json::to_value(whole_upstream()).expect("an upstream is JSON"));
    let keys = keys.chain(of_route).chain(of_upstream);
    let refusals = Refusal::ALL.iter().map(|refusal| refusal.name().to_owned());
    let details = Detail::ALL.iter().map(|detail| detail.name().to_owned());
    let reasons = Forward::ALL.iter().map(|forward| forward.name().to_owned());
    let missing: Vec<String> =
        keys.chain(refusals).chain(details).chain(reasons).filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "edge-node/CACHE.md does not name {missing:?}");
}

/// The keys of a table: those of the tables in it after a dot, those of what is listed in it as they are.
fn keys_of(table: &serde_json::Value) -> Vec<String> {
    use serde_json::Value;
    let of = |(key, value): (&String, &Value)| match value {
        Value::Object(inner) => inner.keys().map(|under| format!("{key}.{under}")).collect(),
        Value::Array(list) => list.iter().flat_map(keys_of).chain([key.clone()]).collect(),
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
