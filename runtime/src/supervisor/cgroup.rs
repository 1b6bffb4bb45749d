//! A cgroup for each runner, where the edge was given a subtree to divide. What the kernel bounds there is all that both processes of a runner
//! hold, also what `RLIMIT_DATA` does not count, such as shared memory; and its book says for certain whether it killed for that.
//!
//! By the kernel's rules (Documentation/admin-guide/cgroup-v2.rst, "Delegation" and "No Internal Process Constraint") and systemd's ("Control
//! Group APIs and Delegation"), who was given a cgroup may divide it, and nothing above it; and what is divided holds no process itself. So
//! the edge moves into a leaf beside those of its runners. Nobody else is moved, and nothing here stops the edge: without a subtree, or
//! where the kernel refuses, runners are bounded by what they take from themselves.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// The leaf of the edge.
const EDGE: &str = "edge";
/// What the name of a runner's leaf begins with; a number follows.
const RUNNER: &str = "runner-";
/// The file that lists a cgroup's processes, and through which they come in.
const PROCESSES: &str = "cgroup.procs";
/// Bytes of one of the kernel's files that are looked at: a line of mountinfo has some 100, and machines have thousands of mounts at most.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Leaves of an edge that was killed that are removed at the start.
const LEFTOVERS_MAX: usize = 4096;
/// Leaves that wait until the processes in them are gone, which takes the kernel some milliseconds each; more are left to the next start.
const LEAVING_MAX: usize = 64;

/// A process is in one cgroup, however many supervisors it has.
static GIVEN: OnceLock<Option<Subtree>> = OnceLock::new();

/// A cgroup that this process may divide, and has divided.
pub(super) struct Subtree {
    path: PathBuf,
    /// It has the memory controller. Without it, as where that is still one of the first version of cgroups, its leaves bound nothing.
    is_bounded: bool,
    made: AtomicU64,
    leaving: Mutex<Vec<PathBuf>>,
    /// Locked for as long as this process lives: there is no other edge whose leaves could be taken for leftovers.
    _lock: File,
}

/// The cgroup of one runner. When this is dropped, it is removed as soon as no process is in it any more.
pub(super) struct Cgroup {
    subtree: &'static Subtree,
    path: PathBuf,
}

/// Why runners have no cgroups of their own.
#[derive(Debug, thiserror::Error)]
enum NotGiven {
    #[error("no unified hierarchy is mounted that shows where this process is")]
    Nowhere,
    #[error("{} was not given to this process", .0.display())]
    Foreign(PathBuf),
    #[error("there are other processes in {}", .0.display())]
    Shared(PathBuf),
    #[error("another edge has divided {}", .0.display())]
    Taken(PathBuf),
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: io::Error },
}

/// The subtree that this process was given, if it was. Takes it the first time.
pub(super) fn given() -> Option<&'static Subtree> {
    let given = GIVEN.get_or_init(|| match here().and_then(|place| Subtree::take(&place)) {
        Ok(subtree) => {
            tracing::info!(path = %subtree.path.display(), bounded = subtree.is_bounded, "each runner has a cgroup of its own");
            Some(subtree)
        }
        Err(reason) => {
            tracing::debug!(%reason, "runners have no cgroups of their own");
            None
        }
    });
    given.as_ref()
}

/// Removes the cgroups of runners that are gone by now.
pub(super) fn sweep() {
    if let Some(Some(subtree)) = GIVEN.get() {
        subtree.sweep();
    }
}

impl Subtree {
    fn take(place: &Place) -> Result<Self, NotGiven> {
        // Who starts an edge after one that was killed may have to put it into the leaf: what is divided takes no process.
        let above = place.path.parent().filter(|above| place.path.file_name() == Some(OsStr::new(EDGE)) && place.was_given(above));
        let path = above.unwrap_or(&place.path).to_owned();
        if above.is_none() && !place.was_given(&path) {
            return Err(NotGiven::Foreign(path));
        }
        let failed = |reason| NotGiven::File { path: path.clone(), reason };
        let lock = File::open(&path).map_err(failed)?;
        if lock.try_lock().is_err() {
            return Err(NotGiven::Taken(path));
        }
        let us = above.is_none().then(std::process::id);
        if !numbers(&read(&path.join(PROCESSES)).map_err(failed)?).all(|process| process.is_some() && process == us) {
            return Err(NotGiven::Shared(path));
        }
        let controllers = read(&path.join("cgroup.controllers")).map_err(failed)?;
        let is_bounded = controllers.split(u8::is_ascii_whitespace).any(|controller| controller == b"memory");
        divide(&path, us.is_some(), is_bounded).map_err(failed)?;
        let (made, leaving) = remove_leftovers(&path);
        Ok(Self { path, is_bounded, made: AtomicU64::new(made), leaving: Mutex::new(leaving), _lock: lock })
    }

    /// Makes a cgroup that holds at most so many bytes, and opens its door: who writes a 0 there is in it.
    pub(super) fn make(&'static self, bytes_max: u64) -> io::Result<(Cgroup, File)> {
        self.sweep();
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{RUNNER}{number}"));
        fs::create_dir(&path)?;
        let cgroup = Cgroup { subtree: self, path };
        if self.is_bounded {
            cgroup.bound(bytes_max)?;
        }
        let door = File::options().write(true).open(cgroup.path.join(PROCESSES))?;
        Ok((cgroup, door))
    }

    fn sweep(&self) {
        self.leaving.lock().retain(|path| is_busy(fs::remove_dir(path)));
    }
}

impl Cgroup {
    fn bound(&self, bytes_max: u64) -> io::Result<()> {
        tell(&self.path.join("memory.max"), &bytes_max.to_string())?;
        // Not on the machine's swap either; and the process that waits dies with the one that holds V8. Kernels may lack these two.
        for (file, value) in [("memory.swap.max", "0"), ("memory.oom.group", "1")] {
            tell(&self.path.join(file), value).or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
        }
        Ok(())
    }

    /// Whether the kernel has killed in it for want of memory, in the machine or in the cgroup. None where it does not tell.
    pub(super) fn was_starved(&self) -> Option<bool> {
        oom_kills(&read(&self.path.join("memory.events")).ok()?).map(|kills| kills > 0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let mut leaving = self.subtree.leaving.lock();
        leaving.truncate(LEAVING_MAX - 1);
        leaving.push(std::mem::take(&mut self.path));
        drop(leaving);
        self.subtree.sweep();
    }
}

/// Makes the edge's leaf, moves this process there where it is not, and hands the memory controller on. Where that fails, all is as it was.
fn divide(path: &Path, moves: bool, is_bounded: bool) -> io::Result<()> {
    let leaf = path.join(EDGE);
    if moves {
        fs::create_dir(&leaf).or_else(|error| if error.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })?;
    }
    let moved = if moves { tell(&leaf.join(PROCESSES), "0") } else { Ok(()) };
    let divided = moved.and_then(|()| if is_bounded { tell(&path.join("cgroup.subtree_control"), "+memory") } else { Ok(()) });
    if divided.is_err() && moves {
        let _ = tell(&path.join(PROCESSES), "0");
        let _ = fs::remove_dir(&leaf);
    }
    divided
}

/// Removes what an edge that was killed has left. The first number that is free, and what cannot be removed yet.
fn remove_leftovers(path: &Path) -> (u64, Vec<PathBuf>) {
    let (mut free, mut busy) = (0, Vec::new());
    for entry in fs::read_dir(path).into_iter().flatten().flatten().take(LEFTOVERS_MAX) {
        let Some(number) = leaf_number(&entry.file_name()) else { continue };
        if is_busy(fs::remove_dir(entry.path())) {
            free = free.max(u64::from(number) + 1);
            busy.push(entry.path());
        }
    }
    busy.truncate(LEAVING_MAX);
    (free, busy)
}

/// The number in the name of a runner's leaf, as we write it.
fn leaf_number(name: &OsStr) -> Option<u32> {
    let digits = name.to_str()?.strip_prefix(RUNNER)?;
    let number: u32 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

/// There are processes in it still, dying ones perhaps.
fn is_busy(removed: io::Result<()>) -> bool {
    removed.is_err_and(|error| error.kind() == ErrorKind::ResourceBusy)
}

/// Where this process is in the unified hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// The folder of its cgroup.
    path: PathBuf,
    /// The folder of the root, as far as the process's cgroup namespace lets it see.
    root: Option<PathBuf>,
}

fn here() -> Result<Place, NotGiven> {
    let file = |path: &str| read(Path::new(path)).map_err(|reason| NotGiven::File { path: path.into(), reason });
    Place::of(&file("/proc/self/cgroup")?, &file("/proc/self/mountinfo")?).ok_or(NotGiven::Nowhere)
}

impl Place {
    /// By `/proc/self/cgroup` (cgroups(7)) and `/proc/self/mountinfo` (proc(5)).
    fn of(cgroups: &[u8], mounts: &[u8]) -> Option<Self> {
        let own = absolute(lines(cgroups).find_map(|line| line.strip_prefix(b"0::"))?)?;
        lines(mounts).filter_map(mount).find_map(|(root, point)| {
            let path = point.join(own.strip_prefix(&root).ok()?);
            Some(Self { path, root: (root == Path::new("/")).then_some(point) })
        })
    }

    /// Whether a cgroup was given to this process: to its user, to its cgroup namespace, or by systemd, which marks what it gives. That the
    /// process may write there says nothing where its user is root. The root of the machine has no type, and is nobody's.
    fn was_given(&self, path: &Path) -> bool {
        let is_domain = read(&path.join("cgroup.type")).is_ok_and(|kind| kind.trim_ascii() == b"domain");
        let user = rustix::process::geteuid();
        let is_users = !user.is_root() && fs::metadata(path).is_ok_and(|folder| folder.uid() == user.as_raw());
        is_domain && (is_users || self.root.as_deref() == Some(path) || is_marked(path))
    }
}

fn is_marked(path: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].into_iter().any(|name| {
        let mut value = [0u8; 1];
        rustix::fs::getxattr(path, name, &mut value).is_ok_and(|len| len == 1) && value == *b"1"
    })
}

/// Root and place of a mount of the unified hierarchy; none where a line of mountinfo is of another.
fn mount(line: &[u8]) -> Option<(PathBuf, PathBuf)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (root, point) = (fields.nth(3)?, fields.next()?);
    // The mount's options, then any number of fields up to a dash.
    let kind = fields.skip(1).skip_while(|field| *field != b"-").nth(1)?;
    if kind != b"cgroup2" {
        return None;
    }
    Some((absolute(&unescaped(root))?, absolute(&unescaped(point))?))
}

/// A path from the root that goes nowhere up: what lies outside of the cgroup namespace is shown with dots.
fn absolute(path: &[u8]) -> Option<PathBuf> {
    let path = Path::new(OsStr::from_bytes(path));
    let is_plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    (path.is_absolute() && is_plain).then(|| path.to_owned())
}

/// Blanks, tabs, line feeds and backslashes are written as three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let (mut plain, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some((byte, after)) = rest.split_first() {
        let escape = after.first_chunk::<3>().filter(|digits| *byte == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        let escaped = escape.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(escaped.unwrap_or(*byte));
        rest = if escaped.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    plain
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// One number in each line; none where it is something else.
fn numbers(text: &[u8]) -> impl Iterator<Item = Option<u32>> {
    lines(text).map(|line| std::str::from_utf8(line).ok()?.parse().ok())
}

/// How often the kernel has killed there, by `memory.events`.
fn oom_kills(events: &[u8]) -> Option<u64> {
    let count = lines(events).find_map(|line| line.strip_prefix(b"oom_kill "))?;
    std::str::from_utf8(count).ok()?.parse().ok()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn tell(path: &Path, what: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(what.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(cgroups: &str, mounts: &str) -> Option<(String, Option<String>)> {
        let text = |path: &Path| path.to_str().expect("text").trim_end_matches('/').to_owned();
        Place::of(cgroups.as_bytes(), mounts.as_bytes()).map(|place| (text(&place.path), place.root.as_deref().map(text)))
    }

    /// A line of mountinfo.
    fn mounted(root: &str, point: &str) -> String {
        format!("29 23 0:26 {root} {point} rw,nosuid,nodev shared:9 master:2 - cgroup2 cgroup2 rw,nsdelegate\n")
    }

    #[test]
    fn the_folder_of_a_process_follows_from_what_the_kernel_says() {
        let at = |path: &str, root: Option<&str>| Some((path.to_owned(), root.map(str::to_owned)));
        let unified = mounted("/", "/sys/fs/cgroup");
        let unit = "0::/system.slice/edge.service\n";
        assert_eq!(place(unit, &unified), at("/sys/fs/cgroup/system.slice/edge.service", Some("/sys/fs/cgroup")));
        assert_eq!(place("0::/", &unified), at("/sys/fs/cgroup", Some("/sys/fs/cgroup")), "a container, or the root of all");
        assert_eq!(
            place("12:memory:/other\n1:name=systemd:/x\n0::/a:b/0::c\n", &unified),
            at("/sys/fs/cgroup/a:b/0::c", Some("/sys/fs/cgroup"))
        );
        // A part of the hierarchy is mounted elsewhere: the one that has us is taken.
        let parts =
            format!("1 2 0:3 / / rw - ext4 /dev/sda rw\n{}{}", mounted("/machines", "/a"), mounted("/system.slice", "/odd\\040place\\134"));
        assert_eq!(place(unit, &parts), at("/odd place\\/edge.service", None));
        assert_eq!(place("0::/system.slices/edge.service\n", &parts), None, "a name that begins like it is another");
    }

    #[test]
    fn nothing_follows_from_anything_else() {
        let unified = mounted("/", "/sys/fs/cgroup");
        for cgroups in ["", "0::", "0::x", "0::/../other", "0::/a/../../b", "1:memory:/a", "::/a", "00::/a"] {
            assert_eq!(place(cgroups, &unified), None, "{cgroups}");
        }
        let short = unified.split(" - ").next().expect("a part").to_owned();
        let first = unified.replacen("cgroup2", "cgroup", 1);
        for mounts in
            ["", "\n\n", " ", "29 23 0:26 /", &short, &first, &mounted("/..", "/a"), &mounted("/", "relative"), &mounted("/", "/a/../b")]
        {
            assert_eq!(place("0::/unit", mounts), None, "{mounts}");
        }
        // Whatever is cut, doubled or turned: a folder below what is mounted, or none.
        let whole = mounted("/a", "/b\\040c\\777\\08\\");
        for at in 0..whole.len() {
            for byte in [b' ', b'-', b'\\', b'/', b'.', b'\n', 0, 0xff] {
                let mut bytes = whole.clone().into_bytes();
                bytes.insert(at, byte);
                let found = [&bytes[..at], &bytes[..], &bytes[at..]].map(|mounts| Place::of(b"0::/a/unit", mounts));
                assert!(found.into_iter().flatten().all(|place| place.path.is_absolute() && place.path.ends_with("unit")), "{at} {byte}");
            }
        }
    }

    #[test]
    fn what_is_escaped_is_read_and_nothing_else() {
        for (field, plain) in
            [("a\\040b\\011\\012\\134", "a b\t\n\\"), ("\\04", "\\04"), ("\\999\\", "\\999\\"), ("\\+40", "\\+40"), ("\\400", "\\400")]
        {
            assert_eq!(unescaped(field.as_bytes()), plain.as_bytes(), "{field}");
        }
    }

    #[test]
    fn only_leaves_of_our_own_are_leftovers() {
        let folder = tempfile::tempdir().expect("a folder");
        let names =
            ["runner-0", "runner-07", "runner-4294967295", "runner-4294967296", "runner-", "runner--1", "runner-1x", "edge", "other"];
        for name in names {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        assert_eq!(remove_leftovers(folder.path()), (0, Vec::new()));
        let left: Vec<_> = names.into_iter().filter(|name| folder.path().join(name).exists()).collect();
        assert_eq!(left, ["runner-07", "runner-4294967296", "runner-", "runner--1", "runner-1x", "edge", "other"]);
        assert_eq!(remove_leftovers(Path::new("/nowhere")), (0, Vec::new()));
    }

    #[test]
    fn what_is_no_cgroup_is_not_taken_and_not_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place { path: folder.path().to_owned(), root: Some(folder.path().to_owned()) };
        assert!(matches!(Subtree::take(&place), Err(NotGiven::Foreign(_))));
        fs::write(folder.path().join("cgroup.type"), "domain\n").expect("written");
        assert!(matches!(Subtree::take(&place), Err(NotGiven::File { .. })), "it has no processes to look at");
        fs::write(folder.path().join(PROCESSES), format!("{}\n0\n", std::process::id())).expect("written");
        assert!(matches!(Subtree::take(&place), Err(NotGiven::Shared(_))), "one of another namespace is another");
        let held = File::open(folder.path()).expect("a folder");
        held.lock().expect("locked");
        assert!(matches!(Subtree::take(&place), Err(NotGiven::Taken(_))));
        fs::write(folder.path().join("cgroup.type"), "domain threaded\n").expect("written");
        assert!(matches!(Subtree::take(&place), Err(NotGiven::Foreign(_))));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2);
    }

    #[test]
    fn the_kernels_book_is_read() {
        assert_eq!(oom_kills(b"low 0\nmax 7\noom 1\noom_kill 2\noom_group_kill 9\n"), Some(2));
        for text in ["", "oom_kill", "oom_kill x\n", "oom_kills 3\n", "oom_kill -1"] {
            assert_eq!(oom_kills(text.as_bytes()), None, "{text}");
        }
    }
}
