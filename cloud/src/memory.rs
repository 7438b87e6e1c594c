//! The memory of this process, as the system's allocator has it.

/// Has all threads allocate from one arena; to be called before there are any. Beside one thread for the sockets there
/// are dozens that wait for the disk, and what each leaves behind in an arena of its own was 11 KiB for each of 2,000
/// devices.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn share() {
    // SAFETY: mallopt may be called at any time. It fails where the system's allocator knows no arenas, which is as good.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn share() {}

/// Gives memory back to the system after a model has gone: glibc keeps freed memory, and gives only the top of the heap
/// back by itself.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub(crate) fn give_back() {
    // SAFETY: malloc_trim may be called at any time, from any thread; it touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() {}
