//! What may run: one version of a worker, with its modules, bindings and limits. Immutable.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Limits;

/// One version of a worker, ready to be loaded into an isolate. The caller has verified it; the runtime trusts only its bounds.
#[derive(Debug, Clone)]
pub struct WorkerSource {
    /// The worker's name.
    pub worker: Arc<str>,
    /// The version's id. Unique over all workers: isolates are found by it.
    pub version: Arc<str>,
    /// The trust group: only workers of one cordon may share a runner process.
    pub cordon: Arc<str>,
    /// The specifier of the entry module, one of `modules`.
    pub entry: String,
    /// All modules; imports resolve among these only.
    pub modules: Vec<Module>,
    /// `env`: plain bindings by name.
    pub vars: BTreeMap<String, Var>,
    /// `YYYY-MM-DD`.
    pub compatibility_date: String,
    /// Compatibility flags by name.
    pub compatibility_flags: Vec<String>,
    /// The bounds that hold for this version.
    pub limits: Limits,
}

/// A binding whose value is in the version record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Var {
    /// A string.
    Text(String),
    /// Any JSON value.
    Json(serde_json::Value),
}

/// One module of a bundle.
#[derive(Debug, Clone)]
pub struct Module {
    /// Path inside the bundle, such as `index.js` or `lib/a.js`. Relative imports resolve against it.
    pub specifier: String,
    /// How it is evaluated.
    pub kind: ModuleKind,
    /// Its bytes (for text kinds: UTF-8).
    pub bytes: Bytes,
    /// Source map (version 3, JSON) of an ES module.
    pub source_map: Option<Bytes>,
}

/// What an import of the module gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModuleKind {
    /// An ES module.
    EsModule,
    /// Its default export is the text.
    Text,
    /// Its default export is the parsed value.
    Json,
    /// Its default export is an `ArrayBuffer`.
    Data,
    /// Its default export is a `WebAssembly.Module`.
    Wasm,
}
