//! Where ONNX Runtime's shared library is.

use crate::providers::Provider;
use protocol::id::Hasher;
use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The environment variable that names the library.
pub const LIBRARY_ENV: &str = "OUTRIGGER_ORT_LIB";

/// The version that `cargo xtask setup` fetches into the cache.
const VERSION: &str = "1.31.1";

/// No library was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "ONNX Runtime is not installed here: looked at {}; install it with `cargo xtask setup`, or \
     set {LIBRARY_ENV} to its library", list(.looked_at)
)]
pub struct LibraryNotFound {
    /// Every place that was tried, in order.
    pub looked_at: Vec<PathBuf>,
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Finds ONNX Runtime's library. Whoever names one, by argument or by [`LIBRARY_ENV`], gets that
/// one or an error; else the first that exists of `lib/` beside the executable, `lib/outrigger/`
/// beside its folder, and the user's cache.
///
/// # Errors
/// [`LibraryNotFound`], which lists where it looked.
pub fn find_library(explicit: Option<&Path>) -> Result<PathBuf, LibraryNotFound> {
    let named = explicit.map(Path::to_owned).or_else(|| non_empty(LIBRARY_ENV).map(PathBuf::from));
    if let Some(named) = named {
        let found = named.is_file();
        return if found { Ok(named) } else { Err(LibraryNotFound { looked_at: vec![named] }) };
    }
    let mut looked_at = Vec::new();
    for folder in library_folders() {
        match newest_library(&folder) {
            Some(library) => return Ok(library),
            None => looked_at.push(folder),
        }
    }
    Err(LibraryNotFound { looked_at })
}

/// Where ONNX Runtime would find the code of a provider that is a library of its own, beside it;
/// `None` for those that are compiled in, or absent.
pub fn provider_library(library: &Path, provider: Provider) -> Option<PathBuf> {
    let own = match provider {
        Provider::Cuda | Provider::TensorRt | Provider::OpenVino => provider.as_str(),
        _ => return None,
    };
    let (prefix, suffix) = (env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let path = library.with_file_name(format!("{prefix}onnxruntime_providers_{own}{suffix}"));
    path.is_file().then_some(path)
}

/// A library in one line, by its content: another line is another program. The library is read, not
/// loaded.
///
/// # Errors
/// When it cannot be read.
pub fn library_identity(library: &Path) -> io::Result<String> {
    let path = library.canonicalize()?;
    let mut file = File::open(&path)?;
    let mut hasher = Hasher::default();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            length => hasher.update(&piece[..length]),
        }
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let hash = hasher.finish().to_string();
    Ok(format!("{name} (sha256 {})", &hash[..16]))
}

fn non_empty(variable: &str) -> Option<OsString> {
    env::var_os(variable).filter(|value| !value.is_empty())
}

fn library_folders() -> Vec<PathBuf> {
    let executable = env::current_exe().ok();
    let beside = executable.as_deref().and_then(Path::parent);
    let installed = beside.and_then(Path::parent).map(|root| root.join("lib/outrigger"));
    let cache = cache_folder().map(|c| c.join(format!("outrigger/onnxruntime-{VERSION}")));
    [beside.map(|b| b.join("lib")), installed, cache].into_iter().flatten().collect()
}

fn cache_folder() -> Option<PathBuf> {
    let home = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
    let in_home = || non_empty(home).map(|home| PathBuf::from(home).join(".cache"));
    non_empty("XDG_CACHE_HOME").map(PathBuf::from).or_else(in_home)
}

/// The library in a folder; of several, the last by name, which has the longest version.
fn newest_library(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    paths.filter(|path| path.is_file() && is_library(path)).max()
}

/// `libonnxruntime.so`, `libonnxruntime.so.1.31.1`, `libonnxruntime.1.31.1.dylib`,
/// `onnxruntime.dll`; not the providers' libraries beside them.
fn is_library(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(rest) = name.strip_prefix(env::consts::DLL_PREFIX) else { return false };
    let Some(rest) = rest.strip_prefix("onnxruntime") else { return false };
    let version = |text: &str| text.chars().all(|c| c == '.' || c.is_ascii_digit());
    if cfg!(target_os = "linux") {
        rest.strip_prefix(env::consts::DLL_SUFFIX).is_some_and(version)
    } else {
        rest.strip_suffix(env::consts::DLL_SUFFIX).is_some_and(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn versions_count_and_providers_do_not() {
        for (name, expected) in [
            ("libonnxruntime.so", true),
            ("libonnxruntime.so.1.31.1", true),
            ("libonnxruntime_providers_shared.so", false),
            ("libonnxruntime.so.tmp", false),
            ("onnxruntime.dll", false),
        ] {
            assert_eq!(is_library(Path::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn a_named_library_is_used_or_missed_by_name() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let file = here.join("Cargo.toml");
        assert_eq!(find_library(Some(&file)), Ok(file));
        let absent = here.join("absent.so");
        let error = find_library(Some(&absent)).unwrap_err();
        assert_eq!(error.looked_at, [absent]);
        assert!(error.to_string().contains("cargo xtask setup"), "{error}");
    }
}
