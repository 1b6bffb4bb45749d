//! Modules: kinds, imports, and what cannot be loaded.

use selvedge_runner::isolate::LoadState;
use selvedge_runtime::ModuleKind::{Data, EsModule, Json, Text, Wasm};

use crate::rig::{Rig, module};

/// `(module (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add))`
const ADD: &[u8] = &[
    0, 97, 115, 109, 1, 0, 0, 0, 1, 7, 1, 96, 2, 127, 127, 1, 127, 3, 2, 1, 0, 7, 7, 1, 3, 97, 100, 100, 0, 0, 10, 9, 1, 7, 0, 32, 0, 32,
    1, 106, 11,
];

crate::tests![
    all_kinds_of_modules_are_imported,
    dynamic_imports_resolve_within_the_bundle,
    other_imports_fail_by_name,
    startup_failures_are_described,
    top_level_await_may_settle_or_never,
    wasm_is_compiled_from_modules_only,
];

fn all_kinds_of_modules_are_imported() {
    let mut rig = Rig::modules(vec![
        module(
            "index.js",
            EsModule,
            "import { double } from './lib/math.js'; import note from './note.txt'; import data from 'data.json'; import raw from './raw.bin';
             import add from './add.wasm'; import { env } from 'cloudflare:workers';
             const { exports } = await WebAssembly.instantiate(add);
             export default { fetch() {
                return Response.json([double(21), note, data.a, raw instanceof ArrayBuffer, [...new Uint8Array(raw)], add instanceof WebAssembly.Module,
                                      exports.add(2, 3), env.GREETING, import.meta.url]);
             } }",
        ),
        module("lib/math.js", EsModule, "import { times } from '../times.js'; export const double = (n) => times(n, 2);"),
        module("times.js", EsModule, "export const times = (a, b) => a * b;"),
        module("note.txt", Text, "grüße"),
        module("data.json", Json, r#"{"a":[1]}"#),
        module("raw.bin", Data, [0_u8, 255]),
        module("add.wasm", Wasm, ADD),
    ]);
    assert_eq!(rig.text("https://example.org/"), r#"[42,"grüße",[1],true,[0,255],true,5,"hello","file:///index.js"]"#);
}

fn dynamic_imports_resolve_within_the_bundle() {
    let mut rig = Rig::modules(vec![
        module(
            "index.js",
            EsModule,
            "export default { async fetch() {
                const { late } = await import('./late.js');
                const again = await import('./late.js');
                let failed = '';
                try { await import('./' + 'nowhere.js'); } catch (error) { failed = error.message; }
                let broken = '';
                try { await import('./broken.js'); } catch (error) { broken = error.name; }
                return Response.json([late, again.late === late, failed, broken]);
             } }",
        ),
        module("late.js", EsModule, "export const late = {};"),
        module("broken.js", EsModule, "export const = 1;"),
    ]);
    assert_eq!(
        rig.text("https://example.org/"),
        r#"[{},true,"\"./nowhere.js\", imported by \"index.js\", is not a module of this worker","SyntaxError"]"#
    );
}

fn failed(source: &str) -> String {
    match Rig::try_modules(vec![module("index.js", EsModule, source)]).loaded() {
        LoadState::Failed(message) => message,
        other => panic!("{source}: {other:?}"),
    }
}

fn other_imports_fail_by_name() {
    for specifier in [
        "ext:core/mod.js",
        "ext:core/ops",
        "ext:selvedge/worker.js",
        "node:fs",
        "https://x.example/a.js",
        "lodash",
        "../up.js",
        "file:///etc/passwd",
    ] {
        let message = failed(&format!("import '{specifier}'; export default {{ fetch() {{}} }}"));
        assert!(message.contains(&format!("\"{specifier}\", imported by \"index.js\"")), "{message}");
    }
    let message = failed("import { RpcTarget } from 'cloudflare:workers'; export default { fetch() {} }");
    assert!(message.contains("RpcTarget"), "{message}");
}

fn startup_failures_are_described() {
    assert!(failed("export default { fetch() {} }; throw new Error('at start');").starts_with("Error: at start\n    at index.js:1:38"));
    let message = failed("export default {\n  fetch( { }\n");
    assert!(message.starts_with("SyntaxError: ") && message.contains("index.js:"), "{message}");
    assert!(failed("export const a = 1;").contains("no default export"));
    assert!(failed("export default {};").contains("fetch"));
    assert!(failed("export default class {}").contains("fetch"));
    assert!(failed("export default { get fetch() { throw new Error('x'); } };").contains("could not be read"));
    assert_eq!(
        Rig::try_modules(vec![module("other.js", EsModule, "")]).loaded(),
        LoadState::Failed("Error: \"index.js\" is not a module of this worker".into())
    );
    let mut rig = Rig::try_modules(vec![module("index.js", EsModule, "import './a.json'"), module("a.json", Json, "{")]);
    assert!(matches!(rig.loaded(), LoadState::Failed(message) if message.starts_with("SyntaxError")));
}

fn top_level_await_may_settle_or_never() {
    let mut rig = Rig::worker(
        "const digest = await crypto.subtle.digest('SHA-256', new Uint8Array());
         export default { fetch() { return new Response(digest.byteLength); } }",
    );
    assert_eq!(rig.text("https://example.org/"), "32");
    assert!(failed("await new Promise(() => {}); export default { fetch() {} }").contains("top-level await"));
}

fn wasm_is_compiled_from_modules_only() {
    let mut rig = Rig::worker(&format!(
        "const bytes = new Uint8Array({ADD:?});
         export default {{ async fetch() {{
            const names = [];
            try {{ new WebAssembly.Module(bytes); }} catch (error) {{ names.push(error.name); }}
            try {{ await WebAssembly.instantiate(bytes); }} catch (error) {{ names.push(error.name); }}
            try {{ await WebAssembly.compile(bytes); }} catch (error) {{ names.push(error.name); }}
            return Response.json(names);
         }} }}"
    ));
    assert_eq!(rig.text("https://example.org/"), r#"["CompileError","CompileError","CompileError"]"#);
}
