//! Evaluates the web APIs and our JavaScript once, while the runner is built, and keeps the result as a V8 snapshot.

use std::fmt::Write as _;
use std::path::PathBuf;

use deno_core::snapshot::{CreateSnapshotOptions, create_snapshot};

#[path = "src/ops/mod.rs"]
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_imports,
    reason = "the runner uses all of it; here only the ops' declarations count"
)]
mod ops;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/ops");
    println!("cargo:rerun-if-changed=src/js");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let residual = lazy_scripts();
    let snapshot = create_snapshot(
        CreateSnapshotOptions {
            cargo_manifest_dir: env!("CARGO_MANIFEST_DIR"),
            startup_snapshot: None,
            skip_op_registration: false,
            extensions: ops::extensions(deno_web::BlobStore::default_arc()),
            extension_transpiler: None,
            with_runtime_cb: None,
        },
        None,
    )
    .expect("the snapshot's scripts evaluate");
    std::fs::write(out.join("snapshot.bin"), &snapshot.output).expect("OUT_DIR is writable");

    // Scripts that no one loaded while the snapshot was made must be handed over at run time: sorted by specifier and ASCII,
    // or deno_core does not find them.
    let mut table = String::from("&[\n");
    for (specifier, source) in residual.iter().filter(|(specifier, _)| !snapshot.consumed_lazy_specifiers.contains(specifier)) {
        assert!(source.is_ascii(), "{specifier} must be ASCII");
        writeln!(table, "({specifier:?}, {source:?}),").expect("a string grows");
    }
    table.push(']');
    std::fs::write(out.join("lazy_scripts.rs"), table).expect("OUT_DIR is writable");
}

/// `(specifier, source)` of the scripts that an isolate may load later, sorted: crypto cannot be in a snapshot.
fn lazy_scripts() -> Vec<(String, String)> {
    let mut scripts: Vec<(String, String)> = ops::extensions(deno_web::BlobStore::default_arc())
        .iter()
        .filter(|extension| extension.name == "deno_crypto")
        .flat_map(|extension| extension.lazy_loaded_js_files.iter())
        .map(|file| (file.specifier.to_string(), file.load().expect("a script of a deno crate is readable").as_str().to_owned()))
        .collect();
    scripts.sort();
    scripts
}
