//! Sorts the keys of a configuration file: supported ones stay, those that wrangler knows warn or fail by name, others fail.

use super::Problem;
use super::format::Table;

/// Keys that [`super::raw::RawProject`] reads.
const SUPPORTED: [&str; 11] =
    ["name", "main", "compatibility_date", "compatibility_flags", "vars", "route", "routes", "limits", "cache", "compress", "early_hints"];

/// Keys without which the worker does the same: a warning says why they have no effect.
const WITHOUT_EFFECT: [(&str, &str); 29] = [
    ("account_id", "an origin has no accounts"),
    ("workers_dev", "there is no workers.dev here; use routes"),
    ("preview_urls", "there are no preview hosts yet"),
    ("minify", "the bundle is not minified, so that stacks stay readable"),
    ("no_bundle", "the worker is bundled all the same"),
    ("upload_source_maps", "the source map is always uploaded"),
    ("observability", "a node logs console.* and exceptions of every worker"),
    ("logpush", "a node logs console.* and exceptions of every worker"),
    ("tail_consumers", "nothing is sent to tail workers"),
    ("streaming_tail_consumers", "nothing is sent to tail workers"),
    ("tsconfig", "the tsconfig.json beside each source is read instead"),
    ("env", "named environments are not read; the settings at the top hold"),
    ("placement", "a worker runs where the request arrives"),
    ("usage_model", "there is one"),
    ("send_metrics", "nothing is sent anywhere"),
    ("keep_vars", "a version has the vars of this file only"),
    ("dev", "use the flags of selvedge dev"),
    ("legacy_env", "named environments are not read"),
    ("secrets", "secrets are not stored yet"),
    ("first_party_worker", "it has no meaning here"),
    ("compliance_region", "it has no meaning here"),
    ("python_modules", "there is no Python here"),
    ("base_dir", "modules are found by their imports"),
    ("find_additional_modules", "modules are found by their imports"),
    ("preserve_file_names", "modules are bundled into one"),
    ("jsx_factory", "use compilerOptions.jsxFactory in tsconfig.json"),
    ("jsx_fragment", "use compilerOptions.jsxFragmentFactory in tsconfig.json"),
    ("configPath", "it has no meaning here"),
    ("topLevelName", "it has no meaning here"),
];

const BINDING: &str = "the worker would not find this binding in env; remove it to deploy without";

/// Keys without which the worker would misbehave: they fail.
const NOT_SUPPORTED: [(&str, &str); 42] = [
    ("kv_namespaces", BINDING),
    ("durable_objects", BINDING),
    ("migrations", "there are no durable objects here"),
    ("queues", BINDING),
    ("services", BINDING),
    ("r2_buckets", BINDING),
    ("d1_databases", BINDING),
    ("vectorize", BINDING),
    ("hyperdrive", BINDING),
    ("workflows", BINDING),
    ("ai", BINDING),
    ("ai_search", BINDING),
    ("ai_search_namespaces", BINDING),
    ("browser", BINDING),
    ("images", BINDING),
    ("media", BINDING),
    ("stream", BINDING),
    ("analytics_engine_datasets", BINDING),
    ("send_email", BINDING),
    ("dispatch_namespaces", BINDING),
    ("mtls_certificates", BINDING),
    ("pipelines", BINDING),
    ("secrets_store_secrets", BINDING),
    ("version_metadata", BINDING),
    ("ratelimits", BINDING),
    ("unsafe", BINDING),
    ("unsafe_hello_world", BINDING),
    ("containers", BINDING),
    ("worker_loaders", BINDING),
    ("vpc_services", BINDING),
    ("vpc_networks", BINDING),
    ("logfwdr", BINDING),
    ("wasm_modules", "import the .wasm file instead"),
    ("text_blobs", "import the file instead"),
    ("data_blobs", "import the file instead"),
    ("triggers", "scheduled handlers would never run"),
    ("rules", "kinds of modules are by extension: .txt .html .sql text, .bin data, .wasm wasm, .json JSON"),
    ("build", "run the command yourself before selvedge deploy"),
    ("assets", "static assets would be missing; serve them from an upstream"),
    ("site", "static assets would be missing; serve them from an upstream"),
    ("define", "the replacements would be missing in the code"),
    ("alias", "use \"imports\" of package.json or \"paths\" of tsconfig.json"),
];

/// Takes everything out of the table that is not [`SUPPORTED`]. Returns the warnings.
pub(super) fn sort_out(table: &mut Table) -> Result<Vec<String>, Problem> {
    let mut warnings = Vec::new();
    table.remove("$schema");
    for key in table.keys().cloned().collect::<Vec<_>>() {
        if SUPPORTED.contains(&key.as_str()) {
            continue;
        }
        let value = table.remove(&key).unwrap_or_default();
        if let Some((_, reason)) = WITHOUT_EFFECT.iter().find(|(name, _)| *name == key) {
            warnings.push(format!("{key}: has no effect: {reason}"));
        } else if let Some((_, reason)) = NOT_SUPPORTED.iter().find(|(name, _)| *name == key) {
            if !is_empty(&value) {
                return Err(Problem::Unsupported { key, reason });
            }
            warnings.push(format!("{key}: not supported; it is empty, so nothing is missing"));
        } else {
            return Err(Problem::UnknownKey { hint: hint(&key), key: key.chars().take(80).collect() });
        }
    }
    Ok(warnings)
}

fn is_empty(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null | serde_json::Value::Bool(false) => true,
        serde_json::Value::Array(values) => values.is_empty(),
        serde_json::Value::Object(table) => table.values().all(is_empty),
        _ => false,
    }
}

/// Names the supported key that the unknown one looks like.
fn hint(key: &str) -> String {
    let most = 3;
    let near = SUPPORTED.iter().map(|known| (distance(key, known), known)).min().filter(|(distance, _)| *distance < most);
    match near {
        Some((_, known)) => format!("; did you mean {known:?}?"),
        None => format!("; known keys are {}", SUPPORTED.join(", ")),
    }
}

/// Levenshtein's distance, cut at long texts.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(40).collect(), b.chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, (right, pair)) in b.iter().zip(row.windows(2)).enumerate() {
            let [diagonal, above] = pair else { continue };
            let beside = next.get(j).copied().unwrap_or(usize::MAX - 1);
            next.push((diagonal + usize::from(left != right)).min(above + 1).min(beside + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
