//! What is in a package.

use std::path::{Path, PathBuf};

/// The files of a package, where they are now.
pub(crate) struct Contents {
    pub(crate) program: PathBuf,
    pub(crate) library: PathBuf,
    /// What the library's makers want to be passed on with it.
    pub(crate) notices: Vec<PathBuf>,
    /// Licence, commented configuration and unit.
    pub(crate) documents: Vec<PathBuf>,
}

/// A file in an installation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) source: &'a Path,
    /// Relative to the installation's prefix. The program finds its library by these places.
    pub(crate) path: String,
    pub(crate) mode: u32,
}

impl Contents {
    /// The files by their place, sorted.
    pub(crate) fn entries(&self) -> Vec<Entry<'_>> {
        let entry = |source, folder: &str, mode| Entry {
            source,
            path: format!("{folder}/{}", file_name(source)),
            mode,
        };
        let documents = self.documents.iter().chain(&self.notices);
        let mut entries: Vec<_> =
            documents.map(|path| entry(path, "share/doc/outrigger-agent", 0o644)).collect();
        entries.push(entry(&self.program, "bin", 0o755));
        entries.push(entry(&self.library, "lib/outrigger", 0o644));
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries
    }
}

/// The name of a file, as text.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
