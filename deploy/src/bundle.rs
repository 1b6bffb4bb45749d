//! From a worker's folder to its modules: rolldown makes one ES module of TypeScript, npm packages, JSON and text; `.wasm` and `.bin`
//! files stay modules of their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rolldown::{
    Bundler, BundlerOptions, CodeSplittingMode, InputItem, IsExternal, ModuleType, OutputFormat, Platform, PreserveEntrySignatures,
    ResolveOptions, SourceMapType,
};
use rolldown_common::{Output, OutputChunk};
use rolldown_error::{BuildDiagnostic, EventKind};
use selvedge_origin::bundle::{ModuleKind, PackModule};
use selvedge_origin::limits::{BUNDLE_BYTES_MAX, MODULES_MAX};

use crate::limits::WATCHED_FILES_MAX;
use crate::project::Project;

/// The name of the module that rolldown makes.
const ENTRY: &str = "index.js";

/// Schemes of modules that the runtime itself has. Whether it has that very module is known when the worker is loaded.
const BUILT_IN_SCHEMES: [&str; 1] = ["cloudflare:"];

/// A worker's modules, with what was read to make them.
#[derive(Debug)]
pub struct Bundled {
    /// The specifier of the entry module, one of `modules`.
    pub entry: String,
    /// The modules.
    pub modules: Vec<PackModule>,
    /// Files that were read; a change of one of them changes the bundle.
    pub inputs: Vec<PathBuf>,
    /// What rolldown wants to be looked at, ready to print.
    pub warnings: Vec<String>,
}

/// Why a folder could not be bundled.
#[derive(Debug, thiserror::Error)]
#[error("{}", .reports.join("\n"))]
pub struct BundleError {
    /// One report for each mistake, with file and position.
    pub reports: Vec<String>,
    /// Files that were read before it failed: `dev` goes on watching them.
    pub inputs: Vec<PathBuf>,
}

impl BundleError {
    fn one(report: impl Into<String>) -> Self {
        Self { reports: vec![report.into()], inputs: Vec::new() }
    }
}

/// Bundles the project in `dir`. `color` is for the reports.
pub async fn bundle(dir: &Path, project: &Project, color: bool) -> Result<Bundled, BundleError> {
    let dir = dir.canonicalize().map_err(|error| BundleError::one(format!("{}: {error}", dir.display())))?;
    let main = dir.join(&project.main);
    if !main.is_file() {
        return Err(BundleError::one(format!("{}: no such file; \"main\" of the configuration names it", main.display())));
    }
    // A panic inside the bundler is a defect of it, and must not end `dev`.
    let task = tokio::spawn(async move { run(&dir, &main, color).await });
    task.await.unwrap_or_else(|error| Err(BundleError::one(format!("the bundler failed: {error}"))))
}

async fn run(dir: &Path, main: &Path, color: bool) -> Result<Bundled, BundleError> {
    let mut bundler =
        Bundler::new(options(dir, main)).map_err(|errors| BundleError { reports: reports(&errors, color), inputs: Vec::new() })?;
    let result = bundler.generate().await;
    let mut inputs: Vec<PathBuf> =
        bundler.watch_files().iter().map(|file| PathBuf::from(file.as_str())).filter(|path| path.is_absolute()).collect();
    inputs.push(main.to_owned());
    inputs.push(dir.join("package.json"));
    inputs.push(dir.join("tsconfig.json"));
    inputs.sort();
    inputs.dedup();
    inputs.truncate(WATCHED_FILES_MAX);
    let output = match result {
        Ok(output) => output,
        Err(errors) => return Err(BundleError { reports: reports(&errors, color), inputs }),
    };
    // A worker has nothing but its bundle: what rolldown would leave to the outside cannot be found later.
    let (missing, warnings): (Vec<_>, Vec<_>) =
        output.warnings.into_iter().partition(|warning| matches!(warning.kind(), EventKind::UnresolvedImport));
    if !missing.is_empty() {
        return Err(BundleError { reports: reports(&missing, color), inputs });
    }
    let has_handler = output.assets.iter().any(|asset| matches!(asset, Output::Chunk(chunk) if exports_default(chunk)));
    if !has_handler {
        let report =
            format!("{}: no default export; a worker is `export default {{ fetch(request, env, ctx) {{ ... }} }}`", main.display());
        return Err(BundleError { reports: vec![report], inputs });
    }
    let modules = output.assets.into_iter().filter_map(module).collect::<Vec<_>>();
    check_size(&modules).map_err(|report| BundleError { reports: vec![report], inputs: inputs.clone() })?;
    Ok(Bundled { entry: ENTRY.to_owned(), modules, inputs, warnings: reports(&warnings, color) })
}

fn options(dir: &Path, main: &Path) -> BundlerOptions {
    let texts = [".txt", ".html", ".sql"].map(|extension| (extension.to_owned(), ModuleType::Text));
    let separate = [".wasm", ".bin"].map(|extension| (extension.to_owned(), ModuleType::Copy));
    BundlerOptions {
        input: Some(vec![InputItem { name: Some("index".to_owned()), import: main.display().to_string() }]),
        cwd: Some(dir.to_owned()),
        // Nothing is written; sources in the map are relative to this folder.
        dir: Some(dir.display().to_string()),
        entry_filenames: Some(ENTRY.to_owned().into()),
        asset_filenames: Some("[name]-[hash][extname]".to_owned().into()),
        format: Some(OutputFormat::Esm),
        platform: Some(Platform::Browser),
        sourcemap: Some(SourceMapType::Hidden),
        // One isolate loads all of it anyway: dynamic imports go into the same module.
        code_splitting: Some(CodeSplittingMode::Bool(false)),
        preserve_entry_signatures: Some(PreserveEntrySignatures::AllowExtension),
        external: Some(IsExternal::Fn(Some(Arc::new(|specifier, _importer, _resolved| {
            let built_in = BUILT_IN_SCHEMES.iter().any(|scheme| specifier.starts_with(scheme));
            Box::pin(std::future::ready(Ok(built_in)))
        })))),
        module_types: Some(texts.into_iter().chain(separate).collect()),
        resolve: Some(ResolveOptions {
            condition_names: Some(["workerd", "worker", "browser", "import"].map(str::to_owned).to_vec()),
            ..Default::default()
        }),
        // What packages of npm ask for, and no worker has `process`.
        define: Some([("process.env.NODE_ENV".to_owned(), "\"production\"".to_owned())].into_iter().collect()),
        ..Default::default()
    }
}

fn exports_default(chunk: &OutputChunk) -> bool {
    chunk.is_entry && chunk.exports.iter().any(|name| name.as_str() == "default")
}

/// A module of rolldown's output; none for the map's own file, which travels with its module.
fn module(output: Output) -> Option<PackModule> {
    match output {
        Output::Chunk(chunk) => Some(PackModule {
            specifier: chunk.filename.to_string(),
            kind: ModuleKind::EsModule,
            bytes: Bytes::from(chunk.code.clone().into_bytes()),
            source_map: chunk.map.as_ref().map(|map| Bytes::from(map.to_json_string().into_bytes())),
        }),
        Output::Asset(asset) if asset.filename.ends_with(".map") => None,
        Output::Asset(asset) => Some(PackModule {
            specifier: asset.filename.to_string(),
            kind: if asset.filename.ends_with(".wasm") { ModuleKind::Wasm } else { ModuleKind::Data },
            bytes: Bytes::copy_from_slice(asset.source.as_bytes()),
            source_map: None,
        }),
    }
}

fn check_size(modules: &[PackModule]) -> Result<(), String> {
    if modules.len() > MODULES_MAX {
        return Err(format!("{} modules; a bundle has at most {MODULES_MAX}", modules.len()));
    }
    let bytes = |module: &PackModule| module.bytes.len() + module.source_map.as_ref().map_or(0, Bytes::len);
    let total = modules.iter().map(bytes).sum::<usize>() as u64;
    if total > BUNDLE_BYTES_MAX {
        let largest = modules.iter().max_by_key(|module| bytes(module)).map(|module| module.specifier.as_str());
        return Err(format!("{total} bytes; a bundle has at most {BUNDLE_BYTES_MAX} (largest module: {})", largest.unwrap_or("none")));
    }
    Ok(())
}

/// Rolldown's diagnostics as texts with file, position and the line itself; paths are relative to where the command runs.
fn reports(diagnostics: &[BuildDiagnostic], color: bool) -> Vec<String> {
    diagnostics.iter().map(|diagnostic| diagnostic.to_diagnostic().convert_to_string(color).trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests;
