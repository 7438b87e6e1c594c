//! What only Linux has, and what is good to have but no wall: it is done as far as it goes.

use rustix::process::{Signal, set_parent_process_death_signal, setpriority_process};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs,
};

use super::Standing;

/// Drops what was inherited, and ends with the thread that started it.
pub(super) fn detach(standing: Standing) {
    close_inherited();
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let _ = std::fs::write("/proc/self/oom_score_adj", standing.oom_score.to_string());
    let _ = setpriority_process(None, standing.niceness);
    let _ = set_no_new_privs(true); // again by Landlock and seccomp, which need it
    drop_capabilities();
}

/// A service has none. Root's `check` may still read the service's files, as far as Landlock lets
/// the child see them.
fn drop_capabilities() {
    let Ok(now) = capabilities(None) else { return };
    let kept = now.permitted & CapabilitySet::DAC_READ_SEARCH;
    let kept =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    let _ = set_capabilities(None, kept);
}

/// Every file of this program is closed on exec; those of libraries in the agent need not be.
fn close_inherited() {
    // SAFETY: nothing in this process owns a descriptor above stderr yet.
    #[allow(unsafe_code)]
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
    }
}
