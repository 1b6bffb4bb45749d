//! The start snapshot: web APIs and our JavaScript, evaluated while the runner is built. And V8's start with our flags.

use std::rc::Rc;
use std::sync::{Arc, Once};

use deno_core::{JsRuntime, RuntimeOptions, SharedArrayBufferStore, v8};

use crate::blobs::CountingBlobs;
use crate::invocations::Invocations;
use crate::limits::{CODE_BYTES_MAX, HEAP_MARGIN_BYTES, WASM_PAGES_MAX};
use crate::ops;

static SNAPSHOT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/snapshot.bin"));
static LAZY_SCRIPTS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/lazy_scripts.rs"));

/// Initialises V8 with the flags of a runner. Once, on the main thread, before other threads exist (rusty_v8 #2054: on
/// processors with protection keys V8 crashes otherwise). `extra_flags` such as `--jitless` come after ours.
pub fn init_platform(extra_flags: &[String]) {
    static INITIALISED: Once = Once::new();
    INITIALISED.call_once(|| {
        // deno_core makes snapshots with a fixed seed: without rehashing, every isolate's hash tables would have it.
        let mut flags = format!("--rehash-snapshot --wasm-max-mem-pages={WASM_PAGES_MAX}");
        for flag in extra_flags {
            flags.push(' ');
            flags.push_str(flag);
        }
        v8::V8::set_flags_from_string(&flags);
        JsRuntime::init_platform(None);
    });
}

/// What a blank isolate is made with.
pub(crate) fn options(
    heap_bytes_max: usize,
    allocator: Option<v8::UniqueRef<v8::Allocator>>,
    blobs: Arc<CountingBlobs>,
    state: Rc<Invocations>,
) -> RuntimeOptions {
    let mut parameters = v8::CreateParams::default()
        .heap_limits(0, heap_bytes_max)
        .set_max_old_generation_size_in_bytes(heap_bytes_max.saturating_add(HEAP_MARGIN_BYTES))
        .set_code_range_size_in_bytes(CODE_BYTES_MAX);
    if let Some(allocator) = allocator {
        parameters = parameters.array_buffer_allocator(allocator);
    }
    let mut extensions = ops::extensions(blobs);
    if let Some(ours) = extensions.last_mut() {
        ours.op_state_fn = Some(Box::new(move |op_state| op_state.put::<Rc<dyn ops::Host>>(state)));
    }
    RuntimeOptions {
        extensions,
        startup_snapshot: Some(SNAPSHOT),
        residual_lazy_js_sources: LAZY_SCRIPTS,
        skip_op_registration: true,
        // Its own, for one isolate: structuredClone moves transferred buffers through it.
        shared_array_buffer_store: Some(SharedArrayBufferStore::default()),
        create_params: Some(parameters),
        ..RuntimeOptions::default()
    }
}
