//! Modules: an import resolves among the modules of the bundle, or is `cloudflare:workers`, or fails by name. There is no
//! loader behind it: V8 is handed modules directly, so `ext:`, `node:`, `https:` and the rest lead nowhere.

use std::cell::RefCell;
use std::collections::HashMap;
use std::num::NonZeroI32;

use deno_core::v8;
use selvedge_runtime::{Module, ModuleKind};
use sourcemap::SourceMap;

use crate::hooks::Hook;
use crate::invocations::Invocations;

/// The one module that is not in a bundle.
const WORKERS: &str = "cloudflare:workers";

/// A module and its specifier.
type Named = (v8::Global<v8::Module>, String);
/// The name of an export and its value.
type Export = (String, v8::Global<v8::Value>);

/// The modules of one isolate.
#[derive(Default)]
pub(crate) struct Modules {
    sources: RefCell<HashMap<String, Module>>,
    compiled: RefCell<HashMap<String, v8::Global<v8::Module>>>,
    /// V8 tells modules apart by hash, and then by identity.
    names: RefCell<HashMap<NonZeroI32, Vec<Named>>>,
    /// What synthetic modules export, until they are evaluated.
    exports: RefCell<HashMap<String, Vec<Export>>>,
    maps: RefCell<HashMap<String, Option<SourceMap>>>,
}

impl Modules {
    /// Drops everything that points into the isolate's heap.
    pub(crate) fn clear(&self) {
        self.compiled.take();
        self.names.take();
        self.exports.take();
    }

    pub(crate) fn add(&self, modules: Vec<Module>) {
        self.sources.borrow_mut().extend(modules.into_iter().map(|module| (module.specifier.clone(), module)));
    }

    /// The specifier that an import means, or why there is none.
    fn resolve(&self, specifier: &str, referrer: &str) -> Result<String, String> {
        let sources = self.sources.borrow();
        let resolved = if specifier.starts_with("./") || specifier.starts_with("../") {
            join(referrer, specifier)
        } else {
            Some(specifier.to_owned())
        };
        match resolved {
            Some(resolved) if resolved == WORKERS || sources.contains_key(&resolved) => Ok(resolved),
            _ => Err(format!("\"{specifier}\", imported by \"{referrer}\", is not a module of this worker")),
        }
    }

    fn name_of(&self, module: v8::Local<'_, v8::Module>) -> Option<String> {
        let names = self.names.borrow();
        names.get(&module.get_identity_hash())?.iter().find(|(other, _)| *other == module).map(|(_, name)| name.clone())
    }

    /// Maps the position at the end of a stack frame's text (`f (index.js:3:7)`, `index.js:3:7`) to the source.
    pub(crate) fn map_frame(&self, frame: &str) -> String {
        self.try_map_frame(frame).unwrap_or_else(|| frame.to_owned())
    }

    fn try_map_frame(&self, frame: &str) -> Option<String> {
        let (body, tail) = frame.strip_suffix(')').map_or((frame, ""), |body| (body, ")"));
        let (rest, column) = body.rsplit_once(':')?;
        let (rest, line) = rest.rsplit_once(':')?;
        let start = if tail.is_empty() { rest.rfind(' ').map_or(0, |space| space + 1) } else { rest.rfind('(')? + 1 };
        let (function, file) = rest.split_at(start);
        let line: u32 = line.parse().ok()?;
        let column: u32 = column.parse().ok()?;
        let (source, line, column) = self.map(file, line, column)?;
        Some(format!("{function}{source}:{line}:{column}{tail}"))
    }

    /// All positions count from 1.
    fn map(&self, file: &str, line: u32, column: u32) -> Option<(String, u32, u32)> {
        let mut maps = self.maps.borrow_mut();
        if !maps.contains_key(file) {
            let sources = self.sources.borrow();
            let module = sources.get(file)?;
            // The map is the customer's, and this is called from V8, through which no panic may pass.
            let parse = || module.source_map.as_ref().and_then(|map| SourceMap::from_slice(map).ok());
            let parsed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(parse)).unwrap_or(None);
            maps.insert(file.to_owned(), parsed);
        }
        let token = maps.get(file)?.as_ref()?.lookup_token(line.checked_sub(1)?, column.checked_sub(1)?)?;
        let source = token.get_source()?.to_owned();
        Some((source, token.get_src_line().checked_add(1)?, token.get_src_col().checked_add(1)?))
    }

    /// Compiles a module and all that it imports. An exception is pending where the answer is None.
    fn compile_graph<'s>(&self, scope: &mut v8::PinScope<'s, '_>, state: &Invocations, root: &str) -> Option<v8::Local<'s, v8::Module>> {
        let mut waiting = vec![root.to_owned()];
        while let Some(specifier) = waiting.pop() {
            if self.compiled.borrow().contains_key(&specifier) {
                continue;
            }
            let module = self.compile(scope, state, &specifier)?;
            let global = v8::Global::new(scope, module);
            self.names.borrow_mut().entry(module.get_identity_hash()).or_default().push((global.clone(), specifier.clone()));
            self.compiled.borrow_mut().insert(specifier.clone(), global);
            if !module.is_source_text_module() {
                continue;
            }
            let requests = module.get_module_requests();
            for index in 0..requests.length() {
                let Some(request) = requests.get(scope, index) else { break };
                let Ok(request) = v8::Local::<v8::ModuleRequest>::try_from(request) else { break };
                let wanted = request.get_specifier().to_rust_string_lossy(scope);
                match self.resolve(&wanted, &specifier) {
                    Ok(resolved) => waiting.push(resolved),
                    Err(message) => return throw(scope, &message),
                }
            }
        }
        self.get(scope, root)
    }

    fn get<'s>(&self, scope: &mut v8::PinScope<'s, '_>, specifier: &str) -> Option<v8::Local<'s, v8::Module>> {
        self.compiled.borrow().get(specifier).map(|module| v8::Local::new(scope, module))
    }

    fn compile<'s>(&self, scope: &mut v8::PinScope<'s, '_>, state: &Invocations, specifier: &str) -> Option<v8::Local<'s, v8::Module>> {
        if specifier == WORKERS {
            return self.compile_workers(scope, state);
        }
        let (kind, bytes) = self.sources.borrow().get(specifier).map(|module| (module.kind, module.bytes.clone()))?;
        if kind == ModuleKind::EsModule {
            let Ok(source) = std::str::from_utf8(&bytes) else { return throw(scope, &format!("\"{specifier}\" is not UTF-8")) };
            let source = v8::String::new(scope, source)?;
            let name = v8::String::new(scope, specifier)?;
            let origin = v8::ScriptOrigin::new(scope, name.into(), 0, 0, false, 0, None, false, false, true, None);
            let mut source = v8::script_compiler::Source::new(source, Some(&origin));
            return v8::script_compiler::compile_module(scope, &mut source);
        }
        let value: v8::Local<v8::Value> = match kind {
            ModuleKind::Data => array_buffer(scope, &bytes).into(),
            ModuleKind::Wasm => {
                state.wasm_allowed.set(true);
                let module = v8::WasmModuleObject::compile(scope, &bytes);
                state.wasm_allowed.set(false);
                module?.into()
            }
            _ => {
                let Ok(text) = std::str::from_utf8(&bytes) else { return throw(scope, &format!("\"{specifier}\" is not UTF-8")) };
                let text = v8::String::new(scope, text)?;
                if kind == ModuleKind::Json { v8::json::parse(scope, text)? } else { text.into() }
            }
        };
        self.synthetic(scope, specifier, vec![("default".to_owned(), value)])
    }

    fn compile_workers<'s>(&self, scope: &mut v8::PinScope<'s, '_>, state: &Invocations) -> Option<v8::Local<'s, v8::Module>> {
        let exports: v8::Local<v8::Object> = state.call(scope, Hook::WorkersModule, &[])?.try_into().ok()?;
        let names = ["cache", "env", "waitUntil", "WorkerEntrypoint"];
        let mut values = Vec::with_capacity(names.len());
        for name in names {
            let key = v8::String::new(scope, name)?;
            values.push((name.to_owned(), exports.get(scope, key.into())?));
        }
        self.synthetic(scope, WORKERS, values)
    }

    fn synthetic<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        specifier: &str,
        exports: Vec<(String, v8::Local<'s, v8::Value>)>,
    ) -> Option<v8::Local<'s, v8::Module>> {
        let name = v8::String::new(scope, specifier)?;
        let mut names = Vec::with_capacity(exports.len());
        for (export, _) in &exports {
            names.push(v8::String::new(scope, export)?);
        }
        let kept = exports.into_iter().map(|(export, value)| (export, v8::Global::new(scope, value))).collect();
        self.exports.borrow_mut().insert(specifier.to_owned(), kept);
        Some(v8::Module::create_synthetic_module(scope, name, &names, evaluate_synthetic))
    }

    /// Compiles, links and evaluates a module: the promise of its evaluation. An exception is pending where there is none.
    pub(crate) fn evaluate<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        state: &Invocations,
        specifier: &str,
    ) -> Option<(v8::Local<'s, v8::Module>, v8::Local<'s, v8::Promise>)> {
        if !self.sources.borrow().contains_key(specifier) && specifier != WORKERS {
            return throw(scope, &format!("\"{specifier}\" is not a module of this worker"));
        }
        let module = self.compile_graph(scope, state, specifier)?;
        module.instantiate_module(scope, resolve_callback)?;
        let promise = module.evaluate(scope)?.try_into().ok()?;
        Some((module, promise))
    }
}

/// A relative specifier against the folder of its referrer. None where it leaves the bundle.
fn join(referrer: &str, specifier: &str) -> Option<String> {
    let mut path: Vec<&str> = referrer.split('/').collect();
    path.pop();
    for segment in specifier.split('/') {
        match segment {
            "." => {}
            ".." => {
                path.pop()?;
            }
            other => path.push(other),
        }
    }
    Some(path.join("/"))
}

fn throw<T>(scope: &mut v8::PinScope<'_, '_>, message: &str) -> Option<T> {
    if let Some(message) = v8::String::new(scope, message) {
        let exception = v8::Exception::error(scope, message);
        scope.throw_exception(exception);
    }
    None
}

/// A fresh buffer with these bytes.
pub(crate) fn array_buffer<'s>(scope: &mut v8::PinScope<'s, '_>, bytes: &[u8]) -> v8::Local<'s, v8::ArrayBuffer> {
    let store = v8::ArrayBuffer::new_backing_store_from_vec(bytes.to_vec()).make_shared();
    v8::ArrayBuffer::with_backing_store(scope, &store)
}

fn resolve_callback<'s>(
    context: v8::Local<'s, v8::Context>,
    specifier: v8::Local<'s, v8::String>,
    _attributes: v8::Local<'s, v8::FixedArray>,
    referrer: v8::Local<'s, v8::Module>,
) -> Option<v8::Local<'s, v8::Module>> {
    v8::callback_scope!(unsafe scope, context);
    let state = Invocations::of(scope)?;
    let referrer = state.modules.name_of(referrer)?;
    let specifier = specifier.to_rust_string_lossy(scope);
    match state.modules.resolve(&specifier, &referrer) {
        Ok(resolved) => state.modules.get(scope, &resolved),
        Err(message) => throw(scope, &message),
    }
}

fn evaluate_synthetic<'s>(context: v8::Local<'s, v8::Context>, module: v8::Local<'s, v8::Module>) -> Option<v8::Local<'s, v8::Value>> {
    v8::callback_scope!(unsafe scope, context);
    let state = Invocations::of(scope)?;
    let name = state.modules.name_of(module)?;
    let exports = state.modules.exports.borrow_mut().remove(&name)?;
    for (export, value) in exports {
        let export = v8::String::new(scope, &export)?;
        let value = v8::Local::new(scope, value);
        module.set_synthetic_module_export(scope, export, value)?;
    }
    let resolver = v8::PromiseResolver::new(scope)?;
    let undefined = v8::undefined(scope);
    resolver.resolve(scope, undefined.into());
    Some(resolver.get_promise(scope).into())
}

/// V8's callback for `import()`.
pub(crate) fn import_dynamically<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    _options: v8::Local<'s, v8::Data>,
    referrer: v8::Local<'s, v8::Value>,
    specifier: v8::Local<'s, v8::String>,
    _attributes: v8::Local<'s, v8::FixedArray>,
) -> Option<v8::Local<'s, v8::Promise>> {
    let resolver = v8::PromiseResolver::new(scope)?;
    let state = Invocations::of(scope)?;
    v8::tc_scope!(let scope, scope);
    let referrer = referrer.to_rust_string_lossy(scope);
    let specifier = specifier.to_rust_string_lossy(scope);
    let evaluated = match state.modules.resolve(&specifier, &referrer) {
        Ok(resolved) => state.modules.evaluate(scope, &state, &resolved),
        Err(message) => throw(scope, &message),
    };
    let Some((module, promise)) = evaluated else {
        let exception = scope.exception()?;
        resolver.reject(scope, exception);
        return Some(resolver.get_promise(scope));
    };
    let namespace = module.get_module_namespace();
    let give = v8::Function::builder(
        |_scope: &mut v8::PinScope<'_, '_>, arguments: v8::FunctionCallbackArguments<'_>, mut answer: v8::ReturnValue<'_>| {
            answer.set(arguments.data());
        },
    )
    .data(namespace)
    .build(scope)?;
    promise.then(scope, give)
}

/// V8's callback for `import()`, `import.defer()` and `import.source()`: the phase makes no difference here.
pub(crate) fn import_dynamically_with_phase<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    options: v8::Local<'s, v8::Data>,
    referrer: v8::Local<'s, v8::Value>,
    specifier: v8::Local<'s, v8::String>,
    _phase: v8::ModuleImportPhase,
    attributes: v8::Local<'s, v8::FixedArray>,
) -> Option<v8::Local<'s, v8::Promise>> {
    import_dynamically(scope, options, referrer, specifier, attributes)
}

/// V8's callback for `import.meta`: only a URL, which leads nowhere.
pub(crate) extern "C" fn import_meta(
    context: v8::Local<'_, v8::Context>,
    module: v8::Local<'_, v8::Module>,
    meta: v8::Local<'_, v8::Object>,
) {
    v8::callback_scope!(unsafe scope, context);
    let Some(name) = Invocations::of(scope).and_then(|state| state.modules.name_of(module)) else { return };
    if let (Some(key), Some(value)) = (v8::String::new(scope, "url"), v8::String::new(scope, &format!("file:///{name}"))) {
        meta.create_data_property(scope, key.into(), value.into());
    }
}

/// V8's callback that says whether wasm may be compiled from bytes: only by the loader above.
pub(crate) extern "C" fn wasm_allowed(context: v8::Local<'_, v8::Context>, _source: v8::Local<'_, v8::String>) -> bool {
    v8::callback_scope!(unsafe scope, context);
    Invocations::of(scope).is_some_and(|state| state.wasm_allowed.get())
}

#[cfg(test)]
#[path = "../../../tests/fuzz/generate.rs"]
mod generate;

#[cfg(test)]
mod tests {
    use super::*;

    /// A map of a customer, and a frame of V8's: the first line of the bytes is the frame.
    fn map_a_frame(bytes: &[u8]) -> String {
        let (frame, map) = bytes.split_at(bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len()));
        let modules = Modules::default();
        let source_map = Some(bytes::Bytes::copy_from_slice(map));
        modules.add(vec![Module { specifier: "index.js".into(), kind: ModuleKind::EsModule, bytes: Default::default(), source_map }]);
        modules.map_frame(&String::from_utf8_lossy(frame))
    }

    #[test]
    fn any_source_map_maps_any_frame_or_leaves_it_as_it_is() {
        let map = r#"{"version":3,"file":"index.js","sources":["src/a.ts","b.ts"],"sourcesContent":["x",null],"names":["f"],"mappings":"AAAA,SAASA;AACA,KCDT;;gBAA4D"}"#;
        let indexed = format!(r#"{{"version":3,"sections":[{{"offset":{{"line":0,"column":4}},"map":{map}}}]}}"#);
        let frames = ["f (index.js:1:1)", "index.js:2:7", "async f (index.js:4:30)", "index.js:4294967295:4294967295"];
        assert_eq!(map_a_frame(format!("f (index.js:1:1)\n{map}").as_bytes()), "f (src/a.ts:1:1)");
        let seeds: Vec<Vec<u8>> =
            frames.iter().flat_map(|frame| [map, &indexed].map(|map| format!("{frame}\n{map}").into_bytes())).collect();
        let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let seed = setting("SELVEDGE_FUZZ_SEED").unwrap_or_else(|| std::process::id().into());
        let mut generator = generate::Generator::new(seed, 4096, &seeds);
        // A panic of the parser is caught; it would be printed a million times.
        std::panic::set_hook(Box::new(|_| {}));
        let failed = (0..setting("SELVEDGE_FUZZ_INPUTS").unwrap_or(1_000_000)).find_map(|_| {
            let input = generator.input().to_vec();
            std::panic::catch_unwind(|| map_a_frame(&input)).is_err().then_some(input)
        });
        let _ = std::panic::take_hook();
        assert!(failed.is_none(), "SELVEDGE_FUZZ_SEED={seed}: panics on b\"{}\"", failed.unwrap_or_default().escape_ascii());
    }

    #[test]
    fn relative_specifiers_stay_inside_the_bundle() {
        assert_eq!(join("index.js", "./a.js").as_deref(), Some("a.js"));
        assert_eq!(join("lib/x/y.js", "../a.js").as_deref(), Some("lib/a.js"));
        assert_eq!(join("index.js", "../../etc/passwd"), None);
    }
}
