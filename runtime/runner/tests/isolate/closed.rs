//! What a worker cannot reach.

use crate::rig::Rig;

crate::tests![
    call_sites_do_not_hand_out_our_functions,
    internals_are_unreachable,
    code_from_strings_is_off,
    there_is_no_shared_memory,
    the_snapshot_leaves_nothing_of_ours
];

fn internals_are_unreachable() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const found = [];
            for (const name of ['Deno', '__bootstrap', '__selvedge', '__infra', 'process', 'require', 'ops', 'core']) {
                if (name in globalThis) found.push(name);
            }
            for (const key of Reflect.ownKeys(globalThis)) {
                if (typeof key === 'string' && (key.startsWith('op_') || key.startsWith('_'))) found.push(key);
            }
            for (const specifier of ['ext:core/ops', 'ext:core/mod.js', 'ext:deno_web/00_url.js', 'ext:selvedge/timers.js', 'node:fs']) {
                try { await import(specifier); found.push(specifier); } catch {}
            }
            for (const Class of [Headers, Request, Response]) found.push(...Object.keys(Class));
            return Response.json(found);
         } }",
    );
    assert_eq!(rig.text("https://example.org/"), "[]");
}

fn code_from_strings_is_off() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            const names = [];
            const attempts = [
                () => eval('1'), () => (0, eval)('1'), () => new Function('return 1')(), () => (async () => {}).constructor('return 1')(),
                () => (function* () {}).constructor('yield 1')(), () => { setTimeout('1', 1); },
            ];
            for (const attempt of attempts) {
                try { attempt(); names.push('ran'); } catch (error) { names.push(error.name); }
            }
            return new Response(names.join());
         } }",
    );
    assert_eq!(rig.text("https://example.org/"), "EvalError,EvalError,EvalError,EvalError,EvalError,TypeError");
}

fn there_is_no_shared_memory() {
    let mut rig = Rig::worker(
        "export default { async fetch() {
            return Response.json([typeof SharedArrayBuffer, typeof Atomics.wait, typeof Atomics.waitAsync, typeof Temporal]);
         } }",
    );
    assert_eq!(rig.text("https://example.org/"), r#"["undefined","undefined","undefined","undefined"]"#);
}

fn the_snapshot_leaves_nothing_of_ours() {
    let mut rig = Rig::worker(
        "export default { fetch() {
            const odd = new Error('x').stack.split('\\n').filter((line) => line.includes('ext:'));
            return Response.json([odd, Object.keys(globalThis).sort()]);
         } }",
    );
    let text = rig.text("https://example.org/");
    assert_eq!(
        text,
        concat!(
            r#"[[],["atob","btoa","caches","clearInterval","clearTimeout","console","crypto","fetch","navigator","performance","queueMicrotask","#,
            r#""reportError","scheduler","self","setInterval","setTimeout","structuredClone"]]"#
        )
    );
}

fn call_sites_do_not_hand_out_our_functions() {
    let mut rig = Rig::worker(
        "Error.prepareStackTrace = (error, sites) => sites;
         export default { async fetch() {
            const target = new EventTarget();
            let sites;
            target.addEventListener('x', () => { sites = new Error('x').stack; });
            target.dispatchEvent(new Event('x'));
            return Response.json(sites.map((site) => [site.getFileName(), site.getFunction() === undefined]));
         } }",
    );
    assert_eq!(rig.text("https://example.org/"), r#"[["index.js",true],["index.js",true]]"#);
}
