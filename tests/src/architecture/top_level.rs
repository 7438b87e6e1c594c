//! The top level of the repository is fixed: a person who opens it sees the five parts of the system, and nothing else.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Violation;

/// The names that the root of the repository may hold.
pub const ALLOWED: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "agent",
    "cloud",
    "protocol",
    "models",
    "tests",
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "LICENSE",
    "clippy.toml",
    "deny.toml",
    "rustfmt.toml",
    ".cargo",
    ".ci",
    ".gitignore",
];

/// What the tools put there, and git does not keep.
const NOT_KEPT: &[&str] = &["target", ".git"];

/// One violation for each of `names` that the top level may not hold.
#[must_use]
pub fn check(names: &[String]) -> Vec<Violation> {
    let strays = names
        .iter()
        .filter(|name| !ALLOWED.contains(&name.as_str()) && !NOT_KEPT.contains(&name.as_str()));
    strays
        .map(|name| Violation {
            what: name.clone(),
            rule: format!(
                "not a name of the top level, which is fixed: put it into one of its folders ({})",
                ALLOWED.join(", ")
            ),
        })
        .collect()
}

/// The names in the folder `root`, sorted, less those that git ignores (an editor's own files, for example).
///
/// # Errors
/// When the folder cannot be read.
pub fn names(root: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !is_ignored(root, &name) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Whether git ignores this name. Without git, or outside a checkout, nothing is ignored.
fn is_ignored(root: &Path, name: &str) -> bool {
    let mut git = Command::new("git");
    git.current_dir(root)
        .args(["check-ignore", "--quiet", "--", name])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    git.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_names_pass() {
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(check(&names(ALLOWED)), []);
        assert_eq!(check(&names(NOT_KEPT)), []);
        let found = check(&names(&["agent", "scripts", "docs"]));
        assert_eq!(found.iter().map(|v| v.what.as_str()).collect::<Vec<_>>(), ["scripts", "docs"]);
    }
}
