//! Memory that the server and one worker both see: a file without a name (`memfd`), mapped by both.
//!
//! The server seals its size, so that neither side can pull it away under the other. Only pages that
//! were written exist, so the mapping may be as large as the largest request.

use bytes::Bytes;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// A mapping, and the file behind it.
#[derive(Debug)]
pub(super) struct SharedMemory {
    base: NonNull<u8>,
    len: usize,
    file: OwnedFd,
}

// SAFETY: the mapping belongs to this value alone and lives as long; what both sides do to its bytes
// is ordered by the words of `lane`, which are atomic.
#[allow(unsafe_code)]
unsafe impl Send for SharedMemory {}
// SAFETY: as above; every method copies, or is told by its caller that nobody writes.
#[allow(unsafe_code)]
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Makes memory of `len` bytes, all 0.
    ///
    /// # Errors
    /// The system has none.
    pub(super) fn create(len: usize) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("outrigger-tensors", flags)?;
        ftruncate(&file, len as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::map(file, len)
    }

    /// Maps memory that the other side made.
    ///
    /// # Errors
    /// The system cannot, or the file is shorter.
    pub(super) fn map(file: OwnedFd, len: usize) -> io::Result<Self> {
        let size = rustix::fs::fstat(&file)?.st_size;
        if usize::try_from(size).map_or(true, |size| size < len) {
            return Err(io::Error::other("the shared memory is shorter than it should be"));
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping, where the system likes, of a file that is long enough and sealed.
        #[allow(unsafe_code)]
        let base = unsafe { mmap(std::ptr::null_mut(), len, access, flags, &file, 0)? };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len, file })
    }

    /// The file, to be given to the other side.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn check(&self, offset: usize, len: usize) {
        let end = offset.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.len), "outside the shared memory");
    }

    /// The word at `offset`, a multiple of 4.
    pub(super) fn word(&self, offset: usize) -> &AtomicU32 {
        self.check(offset, 4);
        assert!(offset.is_multiple_of(4), "not aligned");
        // SAFETY: inside the mapping, aligned because the mapping begins at a page, and never
        // accessed but as an atomic.
        #[allow(unsafe_code)]
        unsafe {
            AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast())
        }
    }

    /// Copies bytes in.
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        // SAFETY: inside the mapping, and `bytes` is memory of this process that cannot overlap it.
        #[allow(unsafe_code)]
        unsafe {
            self.base.as_ptr().add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }

    /// Copies bytes out. Whatever the other side does meanwhile, the copy does not change any more.
    pub(super) fn read(&self, offset: usize, len: usize, into: &mut Vec<u8>) {
        self.check(offset, len);
        into.clear();
        into.reserve(len);
        // SAFETY: inside the mapping, into as much spare room as was just reserved.
        #[allow(unsafe_code)]
        unsafe {
            into.as_mut_ptr().copy_from_nonoverlapping(self.base.as_ptr().add(offset), len);
            into.set_len(len);
        }
    }

    /// Bytes as they lie there, without a copy. Only the worker does so, with a request, which the
    /// server leaves alone until it has the answer.
    pub(super) fn lend(self: &Arc<Self>, offset: usize, len: usize) -> Bytes {
        struct Lent(Arc<SharedMemory>, usize, usize);
        impl AsRef<[u8]> for Lent {
            fn as_ref(&self) -> &[u8] {
                let Self(memory, offset, len) = self;
                // SAFETY: inside the mapping, which `self` keeps; nobody writes, see above.
                #[allow(unsafe_code)]
                unsafe {
                    std::slice::from_raw_parts(memory.base.as_ptr().add(*offset), *len)
                }
            }
        }
        self.check(offset, len);
        Bytes::from_owner(Lent(self.clone(), offset, len))
    }

    /// Gives whole pages back to the system; they read as 0 again.
    pub(super) fn release(&self, offset: usize, len: usize) {
        self.check(offset, len);
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // Where the system cannot, the pages stay until the worker ends.
        let _ = fallocate(&self.file, how, offset as u64, len as u64);
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by this value; all that was lent of it keeps this value.
        #[allow(unsafe_code)]
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_bytes_and_nobody_can_shrink_them() {
        let ours = SharedMemory::create(1 << 20).unwrap();
        let file = ours.file().try_clone_to_owned().unwrap();
        assert!(ftruncate(&file, 0).is_err());
        let theirs = Arc::new(SharedMemory::map(file, 1 << 20).unwrap());
        ours.write(5000, b"tensor");
        assert_eq!(theirs.lend(5000, 6), b"tensor"[..]);
        let mut copy = Vec::new();
        theirs.write(9000, b"answer");
        ours.read(9000, 6, &mut copy);
        assert_eq!(copy, b"answer");
        ours.release(8192, 4096);
        ours.read(9000, 6, &mut copy);
        assert_eq!(copy, [0; 6]);
    }

    #[test]
    #[should_panic(expected = "outside the shared memory")]
    fn nothing_is_read_beyond_it() {
        SharedMemory::create(4096).unwrap().read(4090, 7, &mut Vec::new());
    }

    #[test]
    fn a_shorter_file_is_refused() {
        let ours = SharedMemory::create(4096).unwrap();
        let file = ours.file().try_clone_to_owned().unwrap();
        assert!(SharedMemory::map(file, 8192).is_err());
    }
}
