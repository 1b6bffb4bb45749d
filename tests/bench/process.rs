//! Processes of a bench run: started on a core of their own, measured by the CPU time that the kernel counts, ended by id.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The core of what is measured.
pub(crate) const SERVER_CORE: &str = "0";
/// All that there are: the kernel leaves out those that a machine has not.
pub(crate) const ALL_CORES: &str = "0-1023";
/// The core of the load.
pub(crate) const LOAD_CORE: &str = "1";
/// How long a server may take to answer first.
const READY_WAIT: Duration = Duration::from_secs(20);

/// A server under measurement, with all processes that it starts. Ended when dropped.
pub(crate) struct Server {
    child: Child,
    name: &'static str,
}

impl Server {
    /// Starts a program on [`SERVER_CORE`]; its words go to `log`.
    pub(crate) fn start(name: &'static str, program: &Path, arguments: &[&str], log: &Path) -> io::Result<Self> {
        Self::start_on(SERVER_CORE, name, program, arguments, log)
    }

    /// Starts what a server needs beside it on [`LOAD_CORE`], behind the generator.
    pub(crate) fn start_behind_the_load(name: &'static str, program: &Path, arguments: &[&str], log: &Path) -> io::Result<Self> {
        let server = Self::start_on(LOAD_CORE, name, program, arguments, log)?;
        // SAFETY: a sched_param is plain bits. The process has one thread so far; those that it starts inherit.
        unsafe { libc::sched_setscheduler(server.pid() as i32, libc::SCHED_IDLE, &std::mem::zeroed()) };
        Ok(server)
    }

    /// Starts a program on other cores, as taskset lists them.
    pub(crate) fn start_on(cores: &str, name: &'static str, program: &Path, arguments: &[&str], log: &Path) -> io::Result<Self> {
        let out = std::fs::File::create(log)?;
        let child = Command::new("taskset")
            .args(["-c", cores])
            .arg(program)
            .args(arguments)
            // No line per request, as with the peers: nginx has `access_log off` here, and workerd writes none.
            .env("SELVEDGE_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        Ok(Self { child, name })
    }

    /// CPU time of the process and its descendants so far.
    pub(crate) fn cpu(&self) -> Duration {
        family(self.child.id()).into_iter().filter_map(cpu_of).sum()
    }

    /// The id of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The ids of the process and its descendants.
    pub(crate) fn family(&self) -> Vec<u32> {
        family(self.child.id())
    }

    /// Waits until the address takes connections.
    pub(crate) fn wait_for(&mut self, address: &str) -> io::Result<()> {
        let deadline = Instant::now() + READY_WAIT;
        while std::net::TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("{} ended with {status} before it listened on {address}", self.name)));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("{} does not listen on {address}", self.name)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ours = self.family();
        for signal in [libc::SIGTERM, libc::SIGKILL] {
            for pid in &ours {
                // SAFETY: kill takes no memory; the ids are those of processes that this run started.
                unsafe { libc::kill(*pid as i32, signal) };
            }
            let deadline = Instant::now() + Duration::from_secs(2);
            while Instant::now() < deadline {
                if matches!(self.child.try_wait(), Ok(Some(_))) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn family(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>()
            && let Some(fields) = stat(pid)
        {
            parents.push((pid, fields.get(1).and_then(|ppid| ppid.parse::<u32>().ok()).unwrap_or(0)));
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, ppid)| *ppid == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

/// The fields of `/proc/PID/stat` after the name: state, ppid, ...
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// User and system time of a live process, from the scheduler's nanoseconds where the kernel keeps them.
fn cpu_of(pid: u32) -> Option<Duration> {
    let mut total = Duration::ZERO;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let line = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        total += Duration::from_nanos(line.split(' ').next()?.parse().ok()?);
    }
    Some(total)
}

/// Proportional set size, in bytes.
pub(crate) fn memory_of(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find(|line| line.starts_with("Pss:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// A program of the machine, by name.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Puts the calling thread, and those that it starts, on [`LOAD_CORE`] as far as the machine has it, behind the generator: what they need of the core must not
/// look like a slow answer of the server.
pub(crate) fn stand_behind_the_load() {
    let Ok(core) = LOAD_CORE.parse() else { return };
    // SAFETY: a cpu_set_t and a sched_param are plain bits, and the calls keep within them.
    unsafe {
        let mut cores: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut cores);
        libc::sched_setaffinity(0, size_of_val(&cores), &cores);
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &std::mem::zeroed());
    }
}

/// CPU time of this process so far.
pub(crate) fn own_cpu() -> Duration {
    used(libc::RUSAGE_SELF)
}

/// CPU time of the children that have ended.
pub(crate) fn children_cpu() -> Duration {
    used(libc::RUSAGE_CHILDREN)
}

fn used(whose: libc::c_int) -> Duration {
    // SAFETY: getrusage writes a whole rusage, which is plain numbers.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(whose, &mut usage);
        usage
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}
