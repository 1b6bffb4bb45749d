//! What a project file may say, and how it fails.

use super::*;

const MINIMAL: &str = r#"{"name": "shop", "main": "src/index.ts", "compatibility_date": "2026-08-01""#;

fn with(rest: &str) -> Result<Project, Problem> {
    Project::parse(Format::Json, &format!("{MINIMAL}{rest}}}"))
}

fn refusal(rest: &str) -> String {
    with(rest).expect_err("must be refused").to_string()
}

#[test]
fn jsonc_with_comments_and_trailing_commas_is_read() {
    let project =
        with(", // a comment\n \"vars\": {\"GREETING\": \"hi\", \"N\": {\"a\": [1]},}, \"limits\": {\"cpu_ms\": 50}, ").expect("reads");
    assert_eq!(project.name.as_str(), "shop");
    assert_eq!(project.cpu_ms, Some(50));
    assert_eq!(project.vars.get("N"), Some(&serde_json::json!({"a": [1]})));
    assert!(project.warnings.is_empty());
}

#[test]
fn toml_and_json_of_the_same_content_are_the_same_project() {
    let toml = "name = \"shop\"\nmain = \"src/index.ts\"\ncompatibility_date = 2026-08-01\nroutes = [\"a.example/*\", { pattern = \"b.example\", custom_domain = true }]\n[limits]\nsubrequests = 7\n";
    let from_toml = Project::parse(Format::Toml, toml).expect("reads");
    let from_json = with(r#", "routes": ["a.example/*", {"pattern": "b.example", "custom_domain": true}], "limits": {"subrequests": 7}"#);
    assert_eq!(Ok(from_toml), from_json);
}

#[test]
fn routes_come_in_three_forms() {
    let routes = |rest: &str| with(rest).map(|project| project.routes);
    assert_eq!(routes(r#", "route": "https://a.example/x/*""#), Ok(vec!["a.example/x/*".to_owned()]));
    assert_eq!(routes(r#", "routes": [{"pattern": "a.example/*", "zone_name": "a.example"}]"#), Ok(vec!["a.example/*".to_owned()]));
    assert_eq!(routes(r#", "routes": [{"pattern": "a.example", "custom_domain": true}]"#), Ok(vec!["a.example/*".to_owned()]));
    assert!(refusal(r#", "route": "a.example""#).contains("write \"a.example/*\""));
    assert!(refusal(r#", "routes": ["a.example/*", 3]"#).starts_with("routes[1]"));
    assert!(refusal(r#", "routes": [{"pattern": "a.example/*", "zone": "x"}]"#).contains("zone"));
}

#[test]
fn an_unknown_key_is_refused_by_name_with_a_hint() {
    assert_eq!(refusal(r#", "compatability_flags": []"#), "unknown key \"compatability_flags\"; did you mean \"compatibility_flags\"?");
    assert!(refusal(r#", "frobnicate": 1"#).contains("known keys are name, main"));
}

#[test]
fn a_binding_that_would_be_missing_is_refused_and_a_setting_without_effect_warns() {
    assert!(refusal(r#", "kv_namespaces": [{"binding": "KV", "id": "x"}]"#).starts_with("kv_namespaces: not supported"));
    assert_eq!(with(r#", "kv_namespaces": []"#).map(|project| project.warnings.len()), Ok(1));
    let project = with(r#", "observability": {"enabled": true}, "cache": {"enabled": true, "cross_version_cache": true}"#).expect("reads");
    assert_eq!(project.warnings.len(), 1);
    let flags = with(r#", "compatibility_flags": ["nodejs_compat", "other"]"#).expect("reads").warnings;
    assert!(flags.len() == 2 && flags[0].contains("nodejs_compat: has no effect"), "{flags:?}");
    assert_eq!((project.cache_enabled, project.cache_cross_version), (Some(true), true));
}

#[test]
fn a_bad_value_is_refused_with_its_path() {
    assert!(refusal(r#", "limits": {"cpu_ms": "fast"}"#).starts_with("limits.cpu_ms: invalid type"));
    assert!(refusal(r#", "compress": {"codings": ["deflate"]}"#).starts_with("compress.codings[0]"));
    assert!(refusal(r#", "compress": {"types": ["*/*"]}"#).starts_with("compress.types: \"*/*\""));
    assert_eq!(refusal(r#", "limits": {"cpu_ms": 0}"#), "limits.cpu_ms: 0 is not between 1 and 30000");
    assert!(refusal(r#", "limits": {"cpu": 5}"#).contains("cpu"));
    assert!(Project::parse(Format::Json, r#"{"name": "Shop!"}"#).expect_err("refused").to_string().starts_with("name: worker name"));
}

#[test]
fn a_broken_file_is_refused_with_its_line() {
    let problem = Project::parse(Format::Json, "{\n  \"name\": shop\n}").expect_err("refused").to_string();
    assert!(problem.starts_with("line 2 column 11"), "{problem}");
    let problem = Project::parse(Format::Toml, "name = \"shop\"\nmain = \n").expect_err("refused").to_string();
    assert!(problem.starts_with("line 2 column 8"), "{problem}");
    let deep = format!("{{\"vars\": {}", "[".repeat(10_000));
    assert_eq!(Project::parse(Format::Json, &deep), Err(FormatError::TooDeep(1).into()));
    assert_eq!(Project::parse(Format::Json, "[]"), Err(FormatError::NotATable.into()));
}

#[test]
fn dev_vars_follow_the_rules_of_dotenv_files() {
    let vars = parse_dev_vars("# local\nexport A=1 # one\nB='x # y'\nC=\"a\\nb\"\n\nD=\n").expect("reads");
    let expected = [("A", "1"), ("B", "x # y"), ("C", "a\nb"), ("D", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(vars, expected.into());
    assert_eq!(parse_dev_vars("A=1\nB").expect_err("refused").to_string(), "line 2: expected NAME=value");
    assert!(parse_dev_vars("A=\"x").is_err());
    let pem = "KEY=\"-----BEGIN KEY-----\nabc=\n-----END KEY-----\n\" # a key\r\nmy.name-1 = `it's \"so\"`\nE = x=y\n";
    let expected = [("KEY", "-----BEGIN KEY-----\nabc=\n-----END KEY-----\n"), ("my.name-1", "it's \"so\""), ("E", "x=y")];
    assert_eq!(parse_dev_vars(pem).expect("reads"), expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    for (text, line) in [("A='1\n2' x\n", 1), ("A='1\n2'\n\nB=`\n", 4), ("a hunter2=1", 1), ("hunter2", 1), ("=hunter2", 1)] {
        let refused = parse_dev_vars(text).expect_err("refused").to_string();
        assert!(refused.starts_with(&format!("line {line}:")) && !refused.contains("hunter2"), "{text:?}: {refused}");
    }
}
