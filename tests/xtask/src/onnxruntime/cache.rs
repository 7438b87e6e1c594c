//! Where the library is kept, and how it gets there whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ring::digest;

use super::platform::Platform;
use super::{SetupError, VERSION};

/// The user's cache folder, by the XDG Base Directory Specification: a relative path does not count.
pub(crate) fn folder(
    xdg_cache_home: Option<OsString>,
    home: Option<OsString>,
) -> Result<PathBuf, SetupError> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let xdg = xdg_cache_home.and_then(absolute);
    xdg.or_else(|| home.and_then(absolute).map(|home| home.join(".cache")))
        .ok_or(SetupError::NoCacheFolder)
}

/// The wheel's notices: their names in it, and here.
pub(crate) const NOTICES: [(&str, &str); 2] = [
    ("onnxruntime/LICENSE", "onnxruntime-LICENSE"),
    ("onnxruntime/ThirdPartyNotices.txt", "onnxruntime-ThirdPartyNotices.txt"),
];

/// The place of one platform's library.
pub(crate) struct Slot {
    folder: PathBuf,
    platform: &'static Platform,
}

impl Slot {
    pub(crate) fn new(cache: &Path, platform: &'static Platform) -> Self {
        Self { folder: cache.join("outrigger").join(format!("onnxruntime-{VERSION}")), platform }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join(self.platform.file_name())
    }

    /// The notices that belong to the library.
    pub(crate) fn notices(&self) -> impl Iterator<Item = PathBuf> {
        NOTICES.iter().map(|(_, file)| self.folder.join(file))
    }

    pub(crate) fn platform(&self) -> &'static Platform {
        self.platform
    }

    /// Whether the pinned library is here. A damaged one is not: it is told of, and fetched again.
    pub(crate) fn holds_pinned(&self) -> Result<bool, SetupError> {
        let path = self.path();
        if !path.is_file() {
            return Ok(false);
        }
        let intact = sha256(&path)? == self.platform.sha256;
        if !intact {
            eprintln!("{} is damaged: fetching it again", path.display());
        }
        Ok(intact)
    }

    /// A folder beside the library for what is not checked yet.
    pub(crate) fn partial(&self) -> Result<Partial<'_>, SetupError> {
        let folder = self.folder.join(format!(".partial-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(SetupError::io("make the folder", &folder))?;
        Ok(Partial { slot: self, folder })
    }
}

/// What was fetched and is not checked yet; it is removed when dropped.
pub(crate) struct Partial<'a> {
    slot: &'a Slot,
    folder: PathBuf,
}

impl Partial<'_> {
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the unpacked library goes.
    pub(crate) fn library(&self) -> PathBuf {
        self.folder.join(self.slot.platform.file_name())
    }

    /// Checks the unpacked library and moves it to its place: fsync, rename, fsync of the folder.
    pub(crate) fn keep(&self) -> Result<(), SetupError> {
        let library = self.library();
        let (found, expected) = (sha256(&library)?, self.slot.platform.sha256);
        if found != expected {
            return Err(SetupError::WrongHash { found, expected });
        }
        for notice in self.slot.notices() {
            let fetched = self.folder.join(notice.file_name().unwrap_or_default());
            if fetched.is_file() {
                fs::rename(&fetched, &notice).map_err(SetupError::io("store", &notice))?;
            }
        }
        sync(&library)?;
        fs::rename(&library, self.slot.path())
            .map_err(SetupError::io("store", &self.slot.path()))?;
        sync_folder(&self.slot.folder)
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        // Nothing to do about a failure: a left-over folder is only wasted space.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn sync(path: &Path) -> Result<(), SetupError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(SetupError::io("write out", path))
}

/// Makes the rename durable. Only Unix can open a folder for that.
fn sync_folder(path: &Path) -> Result<(), SetupError> {
    if cfg!(unix) { sync(path) } else { Ok(()) }
}

/// The SHA-256 of a file, in hex.
fn sha256(path: &Path) -> Result<String, SetupError> {
    hash(path).map_err(SetupError::io("read", path))
}

fn hash(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(context.finish())),
            read => context.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of "abc" (FIPS 180-2, appendix B.1).
    const ABC: Platform = Platform {
        os: "any",
        arch: "any",
        member: "onnxruntime/capi/lib.so",
        sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    };

    /// A slot in a folder of this test's own, which is removed when dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("xtask-cache-{}-{name}", std::process::id())))
        }

        fn slot(&self) -> Slot {
            Slot::new(&self.0, &ABC)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_cache_folder_follows_the_environment() {
        let check = |xdg: Option<&str>, home: Option<&str>| {
            folder(xdg.map(OsString::from), home.map(OsString::from))
                .ok()
                .map(|path| path.display().to_string())
        };
        assert_eq!(check(Some("/x"), Some("/h")).as_deref(), Some("/x"));
        assert_eq!(check(None, Some("/h")).as_deref(), Some("/h/.cache"));
        assert_eq!(check(Some("relative"), Some("/h")).as_deref(), Some("/h/.cache"));
        assert_eq!(check(Some(""), None), None);
    }

    #[test]
    fn the_right_library_is_kept_and_nothing_is_left_over() {
        let scratch = Scratch::new("right");
        let slot = scratch.slot();
        assert!(!slot.holds_pinned().expect("an empty cache"));
        let partial = slot.partial().expect("a folder");
        fs::write(partial.library(), "abc").expect("a file");
        partial.keep().expect("the pinned content");
        drop(partial);
        assert!(slot.holds_pinned().expect("a full cache"));
        assert_eq!(fs::read_dir(&slot.folder).expect("the folder").count(), 1);
    }

    #[test]
    fn the_wrong_library_is_never_stored() {
        let scratch = Scratch::new("wrong");
        let slot = scratch.slot();
        let partial = slot.partial().expect("a folder");
        fs::write(partial.library(), "abd").expect("a file");
        assert!(matches!(partial.keep(), Err(SetupError::WrongHash { .. })));
        assert!(!slot.path().exists());
    }

    #[test]
    fn a_damaged_library_is_not_the_pinned_one() {
        let scratch = Scratch::new("damaged");
        let slot = scratch.slot();
        fs::create_dir_all(&slot.folder).expect("a folder");
        fs::write(slot.path(), "ab").expect("a file");
        assert!(!slot.holds_pinned().expect("a readable file"));
    }
}
