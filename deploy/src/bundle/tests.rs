//! What becomes of a folder.

use super::*;
use crate::project::Format;

fn project(main: &str) -> Project {
    let text = format!(r#"{{"name": "w", "main": "{main}", "compatibility_date": "2026-08-01"}}"#);
    Project::parse(Format::Json, &text).expect("reads")
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("folder");
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("folders");
        std::fs::write(path, text).expect("file");
    }
    dir
}

fn text(module: &PackModule) -> &str {
    std::str::from_utf8(&module.bytes).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn typescript_npm_json_and_text_become_one_module_with_a_source_map() {
    let dir = folder(&[
        (
            "src/index.ts",
            "import { greet } from 'greeter';\nimport data from './data.json';\nimport sql from './q.sql';\nexport default { fetch(request: Request): Response { return new Response(greet(data.name) + sql) } };\n",
        ),
        ("src/data.json", "{\"name\": \"Ada\"}"),
        ("src/q.sql", "SELECT 1"),
        ("node_modules/greeter/package.json", r#"{"name":"greeter","exports":{"workerd":"./worker.js","node":"./node.js"}}"#),
        ("node_modules/greeter/worker.js", "export const greet = (name) => `hello from workerd, ${name}`;"),
        ("node_modules/greeter/node.js", "import 'node:fs'; export const greet = 1;"),
    ]);
    let bundled = bundle(dir.path(), &project("src/index.ts"), false).await.expect("bundles");
    let [module] = bundled.modules.as_slice() else { panic!("one module: {:?}", bundled.modules) };
    assert_eq!((module.specifier.as_str(), module.kind), (bundled.entry.as_str(), ModuleKind::EsModule));
    let code = text(module);
    assert!(
        code.contains("hello from workerd") && code.contains("SELECT 1") && code.contains("Ada") && !code.contains(": Request"),
        "{code}"
    );
    let map: serde_json::Value = serde_json::from_slice(module.source_map.as_ref().expect("map")).expect("JSON");
    assert!(map["sources"].as_array().expect("sources").contains(&"src/index.ts".into()), "{map}");
    for input in ["src/index.ts", "src/data.json", "src/q.sql", "node_modules/greeter/worker.js"] {
        let path = dir.path().canonicalize().expect("path").join(input);
        assert!(bundled.inputs.contains(&path), "{input} in {:?}", bundled.inputs);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wasm_and_binary_files_stay_modules_of_their_own() {
    let dir = folder(&[
        (
            "index.js",
            "import add from './add.wasm'; import raw from './raw.bin?module'; export default { fetch() { return new Response(String([add, raw])) } };",
        ),
        ("add.wasm", "\0asm\u{1}\0\0\0"),
        ("raw.bin", "raw"),
    ]);
    let bundled = bundle(dir.path(), &project("index.js"), false).await.expect("bundles");
    let find = |kind| bundled.modules.iter().find(|module| module.kind == kind).expect("module");
    let (entry, wasm, data) = (find(ModuleKind::EsModule), find(ModuleKind::Wasm), find(ModuleKind::Data));
    assert_eq!((&wasm.bytes[..4], &data.bytes[..]), (&b"\0asm"[..], &b"raw"[..]));
    assert!(text(entry).contains(&format!("\"./{}\"", wasm.specifier)), "{}", text(entry));
    assert!(text(entry).contains(&format!("\"./{}\"", data.specifier)), "{}", text(entry));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_reported_with_file_and_position() {
    let dir = folder(&[
        ("src/index.ts", "import x from './missing';\nexport default { fetch() { return x } };\n"),
        ("src/broken.ts", "export default {\n  fetch( {\n};\n"),
    ]);
    let error = bundle(dir.path(), &project("src/index.ts"), false).await.expect_err("refused");
    let text = error.to_string();
    assert!(text.contains("./missing") && text.contains("index.ts:1:15"), "{text}");
    let error = bundle(dir.path(), &project("src/broken.ts"), false).await.expect_err("refused");
    assert!(error.to_string().contains("broken.ts:"), "{error}");
    assert!(error.inputs.iter().any(|path| path.ends_with("src/broken.ts")), "{:?}", error.inputs);
    let error = bundle(dir.path(), &project("src/none.ts"), false).await.expect_err("refused");
    assert!(error.to_string().contains("none.ts: no such file"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_module_that_workers_do_not_have_is_named() {
    let dir = folder(&[(
        "index.js",
        "import fs from 'node:fs';\nimport { env } from 'cloudflare:workers';\nexport default { fetch() { return [fs, env] } };\n",
    )]);
    let error = bundle(dir.path(), &project("index.js"), false).await.expect_err("refused");
    assert!(error.to_string().contains("node:fs") && !error.to_string().contains("cloudflare"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dynamic_imports_are_part_of_the_same_module() {
    let dir = folder(&[
        ("index.js", "export default { async fetch() { const { x } = await import('./lazy.js'); return new Response(x) } };"),
        ("lazy.js", "export const x = 'lazy';"),
    ]);
    let bundled = bundle(dir.path(), &project("index.js"), false).await.expect("bundles");
    assert_eq!(bundled.modules.len(), 1);
    assert!(text(&bundled.modules[0]).contains("lazy"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_default_export_is_refused() {
    let dir = folder(&[("index.js", "addEventListener('fetch', () => {}); export const x = 1;")]);
    let error = bundle(dir.path(), &project("index.js"), false).await.expect_err("refused");
    assert!(error.to_string().contains("no default export"), "{error}");
}
