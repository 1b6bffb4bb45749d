//! A site file: what is not a worker. `name`, `[[upstream]]` and `[[route]]` tables, for `selvedge apply`.

use std::path::Path;

use selvedge_origin::api::wire::RouteSpec;
use selvedge_origin::limits::ROUTES_PER_OWNER_MAX;
use selvedge_origin::registry::{BadName, CacheSettings, CompressSettings, NodeName, Upstream, WorkerName};

use crate::project::{Format, FormatError, Problem, ProjectError, read_bounded, table};

/// A site file, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// The owner of its routes.
    pub name: NodeName,
    /// Its routes, each with the whole upstream that it names.
    pub routes: Vec<RouteSpec>,
    /// What has no effect, with the reason.
    pub warnings: Vec<String>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSite {
    name: String,
    #[serde(default)]
    upstream: Vec<Upstream>,
    #[serde(default)]
    route: Vec<RawRoute>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoute {
    pattern: String,
    worker: Option<String>,
    /// An address, the name of an `[[upstream]]`, or a table.
    upstream: Option<Upstream>,
    #[serde(default)]
    redirect_to_https: bool,
    #[serde(default)]
    cache: CacheSettings,
    #[serde(default)]
    compress: CompressSettings,
    #[serde(default)]
    early_hints: bool,
}

impl Site {
    /// Reads the file, and the files of authorities that it names (`authority_file`, relative to it).
    pub fn load(path: &Path) -> Result<Self, ProjectError> {
        let text = read_bounded(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let read = |file: &str| read_bounded(&folder.join(file)).map_err(|error| error.to_string());
        Self::parse_with(&text, &read).map_err(|problem| ProjectError::Content { file: path.display().to_string(), problem })
    }

    /// Reads the text of a site file that names no other files.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        Self::parse_with(text, &|file| Err(format!("{file}: only a site file on disk can name other files")))
    }

    fn parse_with(text: &str, read: &dyn Fn(&str) -> Result<String, String>) -> Result<Self, Problem> {
        let mut site = serde_json::Value::Object(table(Format::Toml, text).map_err(|error: FormatError| Problem::Format(error))?);
        inline_authorities(&mut site, read)?;
        let raw: RawSite =
            serde_path_to_error::deserialize(site).map_err(|error| Problem::value(error.path().to_string(), error.inner().to_string()))?;
        let name: NodeName = raw.name.parse().map_err(|error: BadName| Problem::value("name", error.to_string()))?;
        check_groups(&raw.upstream)?;
        if raw.route.len() > ROUTES_PER_OWNER_MAX {
            return Err(Problem::value("route", format!("more than {ROUTES_PER_OWNER_MAX} routes")));
        }
        let names = |group: &Upstream| {
            raw.route.iter().any(|route| route.upstream.as_ref().and_then(Upstream::as_address) == group.name.as_deref())
        };
        let unused = raw.upstream.iter().filter(|group| !names(group)).filter_map(|group| group.name.as_ref());
        let warnings = unused.map(|name| format!("upstream {name:?}: has no effect: no route of this file names it")).collect();
        let mut routes: Vec<RouteSpec> = Vec::with_capacity(raw.route.len());
        for (index, route) in raw.route.into_iter().enumerate() {
            let route = check(route, &raw.upstream).map_err(|(key, message)| Problem::value(format!("route[{index}].{key}"), message))?;
            if routes.iter().any(|other| other.pattern == route.pattern) {
                return Err(Problem::value(format!("route[{index}].pattern"), format!("{:?} is there twice", route.pattern)));
            }
            routes.push(route);
        }
        Ok(Self { name, routes, warnings })
    }
}

/// Puts the text of each `authority_file` where the record has it.
fn inline_authorities(site: &mut serde_json::Value, read: &dyn Fn(&str) -> Result<String, String>) -> Result<(), Problem> {
    let tables = |site: &mut serde_json::Value, key: &str| site.get_mut(key).and_then(|list| list.as_array_mut()).map(std::mem::take);
    let inline = |place: String, upstream: &mut serde_json::Value| -> Result<(), Problem> {
        let Some(upstream) = upstream.as_object_mut() else { return Ok(()) };
        let Some(file) = upstream.remove("authority_file") else { return Ok(()) };
        let bad = |message: String| Problem::value(format!("{place}.authority_file"), message);
        let file = file.as_str().ok_or_else(|| bad("is not the path of a file".to_owned()))?;
        if upstream.contains_key("authority") {
            return Err(bad("authority is there too; give one of both".to_owned()));
        }
        let text = read(file).map_err(bad)?;
        upstream.insert("authority".to_owned(), text.into());
        Ok(())
    };
    if let Some(mut groups) = tables(site, "upstream") {
        for (index, group) in groups.iter_mut().enumerate() {
            inline(format!("upstream[{index}]"), group)?;
        }
        site["upstream"] = groups.into();
    }
    if let Some(mut routes) = tables(site, "route") {
        for (index, route) in routes.iter_mut().enumerate() {
            if let Some(upstream) = route.get_mut("upstream") {
                inline(format!("route[{index}].upstream"), upstream)?;
            }
        }
        site["route"] = routes.into();
    }
    Ok(())
}

fn check_groups(groups: &[Upstream]) -> Result<(), Problem> {
    for (index, group) in groups.iter().enumerate() {
        let problem = |key: &str, message: String| Problem::value(format!("upstream[{index}].{key}"), message);
        let Some(name) = &group.name else {
            return Err(problem("name", "missing; routes name an upstream by it".to_owned()));
        };
        if groups.iter().take(index).any(|other| other.name.as_ref() == Some(name)) {
            return Err(problem("name", format!("{name:?} is there twice")));
        }
        group.check().map_err(|bad| problem(&bad.key, bad.rule))?;
    }
    Ok(())
}

fn check(raw: RawRoute, groups: &[Upstream]) -> Result<RouteSpec, (String, String)> {
    let bad = |key: &str, message: String| Err((key.to_owned(), message));
    let pattern = raw.pattern.trim().to_owned();
    if pattern.contains("://") {
        return bad("pattern", format!("{pattern:?}: a pattern has no scheme; set redirect_to_https to leave cleartext"));
    }
    if !pattern.contains('/') {
        return bad("pattern", format!("{pattern:?} has no path; write \"{pattern}/*\" for all of its paths"));
    }
    let worker = raw.worker.map(|name| name.parse::<WorkerName>()).transpose().map_err(|error| ("worker".to_owned(), error.to_string()))?;
    let upstream = raw.upstream.map(|upstream| resolve(upstream, groups)).transpose()?;
    if worker.is_none() && upstream.is_none() {
        return bad("pattern", format!("{pattern:?} has neither a worker nor an upstream; nothing would answer it"));
    }
    raw.cache.check().map_err(|(key, rule)| ("cache".to_owned(), format!("{key}: {rule}")))?;
    raw.compress.check().map_err(|(_, rule)| ("compress".to_owned(), rule))?;
    Ok(RouteSpec {
        pattern,
        worker,
        upstream,
        redirect_to_https: raw.redirect_to_https,
        cache: raw.cache,
        compress: raw.compress,
        early_hints: raw.early_hints,
    })
}

/// The upstream that a route means: of this name, at this address, or as it says.
fn resolve(mut upstream: Upstream, groups: &[Upstream]) -> Result<Upstream, (String, String)> {
    if let Some(name) = upstream.as_address().filter(|text| !text.contains("://")) {
        let named = groups.iter().find(|group| group.name.as_deref() == Some(name));
        return named.cloned().ok_or_else(|| {
            let rule = format!("{name:?}: write http://HOST[:PORT] or https://HOST[:PORT], or the name of an [[upstream]] of this file");
            ("upstream".to_owned(), rule)
        });
    }
    for server in &mut upstream.servers {
        server.address.truncate(server.address.trim_end_matches('/').len());
    }
    let key = |bad: &str| if upstream.as_address().is_some() { "upstream".to_owned() } else { format!("upstream.{bad}") };
    upstream.check().map_err(|bad| (key(&bad.key), format!("{}: {}", bad.key, bad.rule)))?;
    Ok(upstream)
}

/// Feeds generated bytes to the parser of site files: no input may panic or take long.
pub fn fuzz(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(Site::parse(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Site::parse(text).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_site_declares_routes_with_upstreams_workers_and_cache_settings() {
        let text = "name = \"www\"\n[[route]]\npattern = \"www.example.org/*\"\nupstream = \"https://10.0.0.7/\"\nredirect_to_https = true\n\
                    [route.cache]\nstore_set_cookie = true\n[[route]]\npattern = \"/api/*\"\nworker = \"shop\"\nupstream = \"http://[::1]:8080\"\n";
        let site = Site::parse(text).expect("reads");
        let [www, api] = site.routes.as_slice() else { panic!("two routes") };
        assert_eq!(www.upstream, Some("https://10.0.0.7".into()));
        assert_eq!((www.redirect_to_https, www.cache.store_set_cookie), (true, true));
        assert_eq!(api.worker.as_ref().map(WorkerName::as_str), Some("shop"));
    }

    #[test]
    fn a_site_sets_the_cache_of_its_routes() {
        let text = "name = \"www\"\n[[route]]\npattern = \"a.example/*\"\nupstream = \"http://a\"\n[route.cache]\nrequest_directives = \"all\"\n\
                    heuristic_s_max = 60\nstale_if_error_s = 0\nstatus_ttl_s = { \"404\" = 10, \"503\" = 1 }\nttl_jitter_percent = 10\n\
                    early_refresh_percent = 20\nvary = { \"cookie\" = \"bypass\", \"accept-encoding\" = \"normalise:br, GZIP\" }\n\
                    query = [\"page\"]\ndeception_check = false\n";
        let site = Site::parse(text).expect("reads");
        let cache = &site.routes.first().expect("a route").cache;
        assert_eq!((cache.status_ttl_s.get(&404), cache.status_ttl_s.get(&503)), (Some(&10), Some(&1)));
        assert_eq!(cache.vary.get("accept-encoding").map(ToString::to_string).as_deref(), Some("normalise:br,gzip"));
        assert_eq!((cache.early_refresh_percent, cache.deception_check), (20, false));
        for (setting, named) in [
            ("querry = \"keep\"", "querry"),
            ("query = \"some\"", "cache.query"),
            ("vary = { \"cookie\" = \"ignore\" }", "cache.vary.cookie"),
            ("vary = { \"Cookie\" = \"pass\" }", "vary.Cookie"),
            ("status_ttl_s = { \"4xx\" = 1 }", "cache.status_ttl_s"),
            ("ttl_jitter_percent = 51", "ttl_jitter_percent"),
        ] {
            let refused = refusal(&format!(
                "name = \"www\"\n[[route]]\npattern = \"a.example/*\"\nupstream = \"http://a\"\n[route.cache]\n{setting}\n"
            ));
            assert!(refused.contains(named), "{setting}: {refused}");
        }
    }

    #[test]
    fn routes_share_a_named_upstream_or_describe_their_own() {
        let text = "name = \"www\"\n[[upstream]]\nname = \"shop\"\nrequests_max = 50\nservers = [{ address = \"https://a\", weight = 3 }, { address = \"https://b\" }]\n\
                    [upstream.health]\npath = \"/ok\"\n\
                    [[route]]\npattern = \"a.example/*\"\nupstream = \"shop\"\n[[route]]\npattern = \"b.example/*\"\nupstream = \"shop\"\n\
                    [[route]]\npattern = \"c.example/*\"\nupstream = { servers = [{ address = \"http://c\" }], protocol = \"h1\" }\n";
        let site = Site::parse(text).expect("reads");
        assert_eq!(site.warnings, Vec::<String>::new());
        let [a, b, c] = site.routes.as_slice() else { panic!("three routes") };
        assert_eq!(a.upstream, b.upstream);
        let shop = a.upstream.as_ref().expect("an upstream");
        assert_eq!((shop.title(), shop.servers.len(), shop.requests_max), ("shop", 2, Some(50)));
        assert_eq!(shop.health.as_ref().map(|health| health.path.as_str()), Some("/ok"));
        assert_eq!(c.upstream.as_ref().map(Upstream::title), Some("http://c"));
        let more = format!("{text}[[upstream]]\nname = \"shops\"\nservers = [{{ address = \"https://d\" }}]\n");
        let [warning] = &*Site::parse(&more).expect("reads").warnings else { panic!("one warning") };
        assert!(warning.contains("\"shops\""), "{warning}");
    }

    #[test]
    fn the_site_file_of_the_readme_reads() {
        let readme = include_str!("../../README.md");
        let blocks: Vec<&str> = readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        let folder = tempfile::tempdir().expect("a folder");
        let made = rcgen::generate_simple_self_signed(["ca.internal".to_owned()]).expect("a certificate");
        std::fs::write(folder.path().join("ca.pem"), made.cert.pem()).expect("writes");
        std::fs::write(folder.path().join("site.toml"), blocks.concat()).expect("writes");
        let site = Site::load(&folder.path().join("site.toml")).expect("reads");
        assert_eq!((site.name.as_str(), site.routes.len()), ("www", 3));
    }

    #[test]
    fn an_authority_is_in_the_file_or_in_one_beside_it() {
        let made = rcgen::generate_simple_self_signed(["ca.internal".to_owned()]).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), made.cert.pem()).expect("writes");
        let site = |authority: &str| {
            let text = format!(
                "name = \"www\"\n[[upstream]]\nname = \"u\"\nservers = [{{ address = \"https://a\" }}]\n{authority}\n[[route]]\npattern = \"a/*\"\nupstream = \"u\"\n"
            );
            std::fs::write(folder.path().join("site.toml"), text).expect("writes");
            Site::load(&folder.path().join("site.toml"))
        };
        let beside = site("authority_file = \"ca.pem\"").expect("reads");
        let inside = site(&format!("authority = \"\"\"{}\"\"\"", made.cert.pem())).expect("reads");
        assert_eq!(beside, inside);
        assert_eq!(beside.routes[0].upstream.as_ref().and_then(|upstream| upstream.authority.as_deref()), Some(&*made.cert.pem()));
        for (authority, word) in [
            ("authority_file = \"absent.pem\"", "absent.pem"),
            ("authority_file = \"ca.pem\"\nauthority = \"x\"", "one of both"),
            ("authority_file = 7", "authority_file"),
            ("authority_file = \"site.toml\"", "no certificate"),
        ] {
            let refused = site(authority).expect_err(authority).to_string();
            assert!(refused.contains(word) && refused.contains("upstream[0].authority"), "{authority}: {refused}");
        }
    }

    #[test]
    fn what_a_site_may_not_say_is_refused_with_its_path() {
        let route = |rest: &str| format!("name = \"www\"\n[[route]]\npattern = \"a.example/*\"\n{rest}");
        assert!(refusal(&route("upstreams = \"http://a\"")).starts_with("route[0]"));
        assert!(refusal(&route("")).contains("neither a worker nor an upstream"));
        assert!(refusal(&route("upstream = \"ftp://a\"")).starts_with("route[0].upstream"));
        assert!(refusal(&route("upstream = \"shop\"")).contains("name of an [[upstream]]"));
        assert!(refusal(&route("upstream = { servers = [{ address = \"http://a\" }], sticky = 1 }")).contains("sticky"));
        assert!(refusal(&route("upstream = { servers = [{ address = \"http://a\" }], queue_max = 70000 }")).contains("queue_max"));
        assert!(refusal(&route("upstream = \"http://u:p@a\"")).contains("user or password"));
        assert!(refusal(&route("upstream = \"http://a\"\n[route.cache]\nstore_cookies = true")).contains("store_cookies"));
        assert!(refusal("name = \"www\"\nroutes = []").contains("routes"));
        assert!(refusal("[[route]]\npattern = \"a/*\"\n").contains("name"));
        let group = |rest: &str| format!("name = \"www\"\n[[upstream]]\n{rest}");
        assert!(refusal(&group("servers = [{ address = \"http://a\" }]")).starts_with("upstream[0].name"));
        assert!(
            refusal(&group("name = \"a\"\nservers = [{ address = \"http://a\", weight = 0 }]"))
                .starts_with("upstream[0].servers[0].weight")
        );
        assert!(refusal(&group("name = \"a\"\nservers = []")).contains("needs servers"));
    }
}
