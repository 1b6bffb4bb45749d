//! Computes the digest that [`selvedge_runtime::protocol::BUILD`] carries: over all sources of this crate, so that an edge and
//! a runner made from different ones refuse each other. It tells builds apart; it does not authenticate them.

use std::path::{Path, PathBuf};

/// FNV-1a, 64 bits: <http://www.isthe.com/chongo/tech/comp/fnv/>.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

fn main() {
    println!("cargo:rerun-if-changed=src");
    let mut files = Vec::new();
    gather(Path::new("src"), &mut files);
    files.sort();
    let mut digest = FNV_OFFSET;
    for file in files {
        println!("cargo:rerun-if-changed={}", file.display());
        let bytes = std::fs::read(&file).expect("a source file that was just listed");
        for byte in file.to_string_lossy().bytes().chain([0]).chain(bytes) {
            digest = (digest ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
    }
    println!("cargo:rustc-env=SELVEDGE_RUNTIME_DIGEST={digest:016x}");
}

fn gather(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the source folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            gather(&path, files);
        } else {
            files.push(path);
        }
    }
}
