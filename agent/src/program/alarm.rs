//! The end of a candidate that does not even say that it is there: the system's own alarm goes on over `exec`,
//! and ends the process unless somebody in it, once it is well, takes it back. No other process waits for
//! that, and a program that hangs at its first instruction is ended too.

/// Has this process ended after so many seconds, whatever program it is by then; 0 for never.
pub(super) fn set(after_s: u32) {
    // SAFETY: neither call touches memory; the default action of SIGALRM ends the process.
    #[allow(unsafe_code)]
    unsafe {
        libc::signal(libc::SIGALRM, libc::SIG_DFL); // whoever started us may have had it ignored
        libc::alarm(after_s);
    }
}
