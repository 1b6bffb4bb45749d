//! What a daemon needs of its machine, the registry and a node alike: descriptors, and a folder of its own.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Allows this process as many open files as it may have: a connection is one, and so is a file that is read, and what a process gets by default is made for
/// programs without connections. Warns where those are fewer than `wanted`, which `needs` says what for.
pub fn raise_descriptor_limit(wanted: u64, needs: &str) {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "cannot raise the bound of open files");
    }
    if let Some(maximum) = getrlimit(Resource::Nofile).current.filter(|maximum| *maximum < wanted) {
        tracing::warn!(maximum, wanted, "fewer open files are allowed than {needs}: accepting will fail at the bound");
    }
}

/// Makes a folder for its owner only. One that was there before may be open to others, and is closed; one of another owner stays as it is. Blocks.
pub fn private_folder(folder: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let is_open = std::fs::metadata(folder).is_ok_and(|about| about.permissions().mode() & 0o077 != 0);
    if is_open && let Err(error) = std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)) {
        tracing::warn!(folder = %folder.display(), %error, "others may look into the data folder");
    }
    Ok(())
}
