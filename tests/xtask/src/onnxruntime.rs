//! Brings ONNX Runtime to this machine: the library from the PyPI wheel that its makers publish, by its SHA-256.
//!
//! It is kept in the user's cache folder and hashed again at each use, so a damaged file is noticed and fetched again.
//! `OUTRIGGER_ORT_LIB` names a library to use as it is instead: a GPU build, a distribution's own, or on a platform
//! that has no row in [`platform::PLATFORMS`].

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

mod cache;
mod platform;
mod python;

/// The version that is brought.
pub(crate) const VERSION: &str = "1.31.1";

/// Names a library to use instead, and tells every program where the library is.
pub(crate) const LIBRARY_VARIABLE: &str = "OUTRIGGER_ORT_LIB";

/// Why there is no ONNX Runtime.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("{LIBRARY_VARIABLE} names {}, which is not a file", path.display())]
    NoSuchLibrary { path: PathBuf },
    #[error(
        "setup cannot bring ONNX Runtime {VERSION} for {os} on {arch} yet: no library is pinned for this platform"
    )]
    UnsupportedPlatform { os: &'static str, arch: &'static str },
    #[error(
        "no folder to keep ONNX Runtime in: neither XDG_CACHE_HOME nor HOME is set to an absolute path"
    )]
    NoCacheFolder,
    #[error("python3 is not on the PATH; setup needs it to fetch ONNX Runtime from PyPI")]
    PythonMissing,
    #[error("python3 has no pip; setup needs it to fetch ONNX Runtime from PyPI")]
    PipMissing,
    #[error("cannot {what}, python3 said:\n{stderr_tail}")]
    Python { what: &'static str, stderr_tail: String },
    #[error("pip fetched no wheel of onnxruntime {VERSION}")]
    NoWheel,
    #[error("the library in the wheel is not the pinned one: SHA-256 {found}, expected {expected}")]
    WrongHash { found: String, expected: &'static str },
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl SetupError {
    /// What the person can do now.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoSuchLibrary { .. } => {
                format!("let {LIBRARY_VARIABLE} name libonnxruntime.so, or unset it to have setup bring one")
            }
            Self::UnsupportedPlatform { .. } => {
                format!("install ONNX Runtime 1.24 or newer and let {LIBRARY_VARIABLE} name its library")
            }
            Self::NoCacheFolder => "set XDG_CACHE_HOME to a folder that you may write to".to_owned(),
            Self::PythonMissing => {
                format!("install it (Debian: apt install python3 python3-pip), or let {LIBRARY_VARIABLE} name a library")
            }
            Self::PipMissing => {
                format!("install it (Debian: apt install python3-pip), or let {LIBRARY_VARIABLE} name a library")
            }
            Self::Python { .. } | Self::NoWheel => format!(
                "check the network and pip's configuration (index, proxy): `python3 -m pip download --no-deps onnxruntime=={VERSION}` \
                 must work; or let {LIBRARY_VARIABLE} name a library that is here already"
            ),
            Self::WrongHash { .. } => {
                "do not use it: the package index served another file than its makers published; check pip's index".to_owned()
            }
            Self::Io { .. } => return None,
        };
        Some(hint)
    }

    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// Where a library came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Override,
    Cache,
    Download,
}

impl Source {
    /// The name for `--json`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Override => "override",
            Self::Cache => "cache",
            Self::Download => "download",
        }
    }
}

/// A library that can be loaded.
#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) path: PathBuf,
    pub(crate) source: Source,
}

/// The library of ONNX Runtime, fetched if it is not here yet.
pub(crate) fn bring() -> Result<Library, SetupError> {
    if let Some(path) = env::var_os(LIBRARY_VARIABLE).filter(|path| !path.is_empty()) {
        return chosen(PathBuf::from(path));
    }
    let platform = platform::this()?;
    let slot = cache::Slot::new(
        &cache::folder(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"))?,
        platform,
    );
    if slot.holds_pinned()? {
        return Ok(Library { path: slot.path(), source: Source::Cache });
    }
    fetch(&slot)?;
    Ok(Library { path: slot.path(), source: Source::Download })
}

/// The project's own folder in the user's cache.
pub(crate) fn cache_folder() -> Result<PathBuf, SetupError> {
    let cache = cache::folder(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"))?;
    Ok(cache.join("outrigger"))
}

/// The licence of the pinned library and the notices of what is in it: who passes the library on passes them on too.
pub(crate) fn notices() -> Result<Vec<PathBuf>, SetupError> {
    let cache = cache::folder(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"))?;
    let slot = cache::Slot::new(&cache, platform::this()?);
    if !slot.notices().all(|notice| notice.is_file()) {
        fetch(&slot)?;
    }
    Ok(slot.notices().collect())
}

fn chosen(path: PathBuf) -> Result<Library, SetupError> {
    if !path.is_file() {
        return Err(SetupError::NoSuchLibrary { path });
    }
    let path = std::path::absolute(&path).map_err(SetupError::io("resolve", &path))?;
    Ok(Library { path, source: Source::Override })
}

fn fetch(slot: &cache::Slot) -> Result<(), SetupError> {
    let progress = progress();
    let python = python::Python::find()?;
    let partial = slot.partial()?;
    say(&progress, &format!("fetching ONNX Runtime {VERSION} from PyPI (about 24 MB)"));
    let wheel = python.download(&format!("onnxruntime=={VERSION}"), partial.folder())?;
    say(&progress, "unpacking and checking ONNX Runtime");
    python.extract(&wheel, slot.platform().member, &partial.library())?;
    for (member, file) in cache::NOTICES {
        python.extract(&wheel, member, &partial.folder().join(file))?;
    }
    partial.keep()?;
    progress.finish_and_clear();
    Ok(())
}

fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
    let progress = ProgressBar::new_spinner();
    if let Ok(style) = style {
        progress.set_style(style);
    }
    progress.enable_steady_tick(Duration::from_millis(100));
    progress
}

/// Shows `what` beside the spinner, or as a plain line where stderr is no terminal.
fn say(progress: &ProgressBar, what: &str) {
    progress.set_message(what.to_owned());
    if progress.is_hidden() {
        eprintln!("{what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_refused_with_a_hint() {
        let error = chosen(PathBuf::from("/nowhere/libonnxruntime.so")).expect_err("no such file");
        assert_eq!(
            error.to_string(),
            "OUTRIGGER_ORT_LIB names /nowhere/libonnxruntime.so, which is not a file"
        );
        assert!(error.hint().is_some_and(|hint| hint.contains("unset it")));
    }

    #[test]
    fn a_folder_is_no_library() {
        assert!(matches!(chosen(env::temp_dir()), Err(SetupError::NoSuchLibrary { .. })));
    }
}
