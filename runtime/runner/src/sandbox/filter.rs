//! The system calls that a runner's threads may make once they all exist: memory, threads, clocks, waiting, and its links.
//! Everything else fails with EPERM, so that the proof (and a log) can see it.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};

/// Allowed with any arguments.
const ALLOWED: &[libc::c_long] = &[
    // Memory; V8 makes code, hence mprotect and protection keys.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_pkey_alloc,
    libc::SYS_pkey_free,
    libc::SYS_pkey_mprotect,
    // Threads. clone3 is answered by a filter of its own.
    libc::SYS_futex,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_membarrier,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Clocks and waiting.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    // What is open already.
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_close,
    // Signals: the watchdog's alarm, and dying.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Harmless questions.
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sysinfo,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

/// `PR_SET_VMA`: allocators name their mappings.
const PR_SET_VMA: u64 = 0x5356_4d41;
/// What a new thread shares with the old one, at least; a process of its own shares less.
const THREAD_FLAGS: u64 = (libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD) as u64;

/// Filters all threads of the process, also those to come.
pub(super) fn apply() -> Result<(), String> {
    for program in [no_clone3()?, allow_list()?] {
        seccompiler::apply_filter_all_threads(&program).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// clone3 hides its flags behind a pointer where no filter can see them: with ENOSYS, libc falls back to clone.
fn no_clone3() -> Result<BpfProgram, String> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    compile(rules, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))
}

fn allow_list() -> Result<BpfProgram, String> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let equals = |argument, value| condition(argument, SeccompCmpOp::Eq, value);
    rules.insert(libc::SYS_clone, vec![rule([condition(0, SeccompCmpOp::MaskedEq(THREAD_FLAGS), THREAD_FLAGS)])?]);
    // To a socket's other end only, never to an address.
    rules.insert(libc::SYS_sendto, vec![rule([equals(4, 0)])?]);
    rules.insert(libc::SYS_tgkill, vec![rule([equals(0, u64::from(std::process::id()))])?]);
    rules.insert(libc::SYS_prlimit64, vec![rule([equals(0, 0), equals(2, 0)])?]);
    let names = [libc::PR_SET_NAME as u64, libc::PR_GET_NAME as u64, PR_SET_VMA];
    rules.insert(libc::SYS_prctl, names.into_iter().map(|name| rule([equals(0, name)])).collect::<Result<_, _>>()?);
    let questions = [libc::F_GETFD as u64, libc::F_GETFL as u64];
    rules.insert(libc::SYS_fcntl, questions.into_iter().map(|question| rule([equals(1, question)])).collect::<Result<_, _>>()?);
    compile(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> seccompiler::Result<SeccompCondition> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value)?)
}

fn rule<const N: usize>(conditions: [seccompiler::Result<SeccompCondition>; N]) -> Result<SeccompRule, String> {
    let conditions: Vec<_> = conditions.into_iter().collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    SeccompRule::new(conditions).map_err(|error| error.to_string())
}

fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>, otherwise: SeccompAction, matching: SeccompAction) -> Result<BpfProgram, String> {
    let arch = std::env::consts::ARCH.try_into().map_err(|error: seccompiler::BackendError| error.to_string())?;
    let filter = SeccompFilter::new(rules, otherwise, matching, arch).map_err(|error| error.to_string())?;
    filter.try_into().map_err(|error: seccompiler::BackendError| error.to_string())
}
