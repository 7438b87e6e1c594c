//! seccomp: what the child may ask of the kernel.
//!
//! A list of what is allowed, because a list of what is forbidden is out of date with the next
//! kernel. Whatever is not on it answers `ENOSYS`, which libraries take for an old kernel and live
//! with; a runtime that grows a new wish should not lose a fleet its models. What no runtime has an
//! innocent wish for ends the process: code in a model that gets that far shall not see the
//! error and behave.

use super::Layer;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};
use std::collections::BTreeMap;

/// Memory, files that are open or may be read, time, threads, signals to itself, and the end.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The older names of some of them.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[libc::c_long] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_stat,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[libc::c_long] = &[];

/// What a GPU's driver asks for beside: its devices' own calls, waiting for them, memory that stays near
/// to them; and a local socket on which it listens for other processes that share the device's memory,
/// without which it does not start. It can connect to none.
const ALLOWED_WITH_ACCELERATOR: &[libc::c_long] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_get_mempolicy,
    libc::SYS_ioctl,
    libc::SYS_listen,
    libc::SYS_mbind,
    libc::SYS_mlock,
    libc::SYS_munlock,
    libc::SYS_pipe2,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_set_mempolicy,
    libc::SYS_setsockopt,
];

/// CUDA removes the name of its socket, which has none, and does not start unless it hears that there is
/// no such file. Whatever else is to be removed: that is the answer.
#[cfg(target_arch = "x86_64")]
const REMOVES: &[libc::c_long] = &[libc::SYS_unlink, libc::SYS_unlinkat];
#[cfg(not(target_arch = "x86_64"))]
const REMOVES: &[libc::c_long] = &[libc::SYS_unlinkat];

/// Other programs, other processes, other file systems, other kernels, other keys.
const FATAL: &[libc::c_long] = &[
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_delete_module,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_finit_module,
    libc::SYS_fsopen,
    libc::SYS_init_module,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
];

pub(super) fn confine(has_accelerator: bool) -> Layer {
    match programs(has_accelerator).and_then(|programs| {
        programs.iter().try_for_each(|program| apply_filter(program)).map_err(|e| e.to_string())
    }) {
        Ok(()) => Layer::Full,
        Err(why) => Layer::None(why),
    }
}

/// Of several filters the kernel takes the strictest answer. The list of what is fatal comes first,
/// because installing a filter is itself not on the list of what is allowed.
fn programs(has_accelerator: bool) -> Result<Vec<BpfProgram>, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|e| e.to_string())?;
    let any = |number: &libc::c_long| (*number, Vec::new());
    let fatal: BTreeMap<i64, Vec<SeccompRule>> = FATAL.iter().map(any).collect();
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ALLOWED_HERE).map(any).collect();
    if has_accelerator {
        allowed.extend(ALLOWED_WITH_ACCELERATOR.iter().chain(REMOVES).map(any));
        allowed.extend(local_sockets().map_err(|e| e.to_string())?);
    }
    allowed.extend(only_some().map_err(|e| e.to_string())?);
    let compile = |rules, otherwise, matched| {
        SeccompFilter::new(rules, otherwise, matched, arch)
            .and_then(BpfProgram::try_from)
            .map_err(|e| e.to_string())
    };
    let error = |number: i32| SeccompAction::Errno(number.unsigned_abs());
    let absent = REMOVES.iter().map(any).collect();
    Ok(vec![
        compile(fatal, SeccompAction::Allow, SeccompAction::KillProcess)?,
        compile(absent, SeccompAction::Allow, error(libc::ENOENT))?,
        compile(allowed, error(libc::ENOSYS), SeccompAction::Allow)?,
    ])
}

/// No other kind of socket.
fn local_sockets() -> Result<Rules, seccompiler::BackendError> {
    let local = libc::AF_UNIX.unsigned_abs().into();
    let domain = SeccompCondition::new(0, Length::Dword, Is::Eq, local)?;
    Ok(vec![(libc::SYS_socket, vec![SeccompRule::new(vec![domain])?])])
}

type Rules = Vec<(i64, Vec<SeccompRule>)>;

/// Allowed with some arguments: threads but no processes, signals to itself (`abort` sends one),
/// names for threads and memory, limits to be read, a thread's own priority to be lowered. `clone3` cannot be looked into, so it is an
/// unknown call, and the C library takes `clone`.
fn only_some() -> Result<Rules, seccompiler::BackendError> {
    let rule = |argument, length, is, value| -> Result<SeccompRule, seccompiler::BackendError> {
        SeccompRule::new(vec![SeccompCondition::new(argument, length, is, value)?])
    };
    let thread = libc::CLONE_THREAD.unsigned_abs().into();
    let own = std::process::id().into();
    let own_thread = SeccompRule::new(vec![
        SeccompCondition::new(0, Length::Dword, Is::Eq, libc::PRIO_PROCESS.into())?,
        SeccompCondition::new(1, Length::Dword, Is::Eq, 0)?,
    ])?;
    let named = [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA];
    let named = named.map(|name| rule(0, Length::Dword, Is::Eq, name.unsigned_abs().into()));
    Ok(vec![
        (libc::SYS_clone, vec![rule(0, Length::Qword, Is::MaskedEq(thread), thread)?]),
        (libc::SYS_kill, vec![rule(0, Length::Dword, Is::Eq, own)?]),
        (libc::SYS_tgkill, vec![rule(0, Length::Dword, Is::Eq, own)?]),
        (libc::SYS_prctl, named.into_iter().collect::<Result<_, _>>()?),
        (libc::SYS_setpriority, vec![own_thread]),
        (libc::SYS_prlimit64, vec![rule(2, Length::Qword, Is::Eq, 0)?]),
    ])
}
