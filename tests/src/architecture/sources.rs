//! What a source file may be: not too long, and finished.
//!
//! The length of a function is clippy's to check (`too-many-lines-threshold` in clippy.toml).

use std::io;
use std::path::{Path, PathBuf};

use super::Violation;

/// The longest that a source file may be, in lines.
pub const MAX_FILE_LINES: usize = 800;

/// The longest that ARCHITECTURE.md may be, in lines: a map that takes a day to read is no map.
pub const MAX_MAP_LINES: usize = 300;

/// Endings of the files that people write and read as source.
const SOURCE_ENDINGS: &[&str] = &["rs", "proto", "py", "sh", "js", "css", "html"];

/// What no Rust file may hold, and why. Spelled in two parts, so that this file keeps its own rule.
const FORBIDDEN_IN_RUST: &[(&str, &str)] = &[
    (concat!("to", "do!"), "what is not there yet is left out, or is a typed error that says so"),
    (
        concat!("unimpl", "emented!"),
        "what is not there yet is left out, or is a typed error that says so",
    ),
    (concat!("#[ig", "nore"), "a test that does not run proves nothing: make it run, or delete it"),
];

/// Every broken rule in the file `path` with this `text`.
#[must_use]
pub fn check(path: &str, text: &str) -> Vec<Violation> {
    let limit = if path == "ARCHITECTURE.md" { MAX_MAP_LINES } else { MAX_FILE_LINES };
    let mut violations: Vec<Violation> = too_long(path, text, limit).into_iter().collect();
    if has_ending(Path::new(path), &["rs"]) {
        violations.extend(forbidden(path, text));
    }
    violations
}

fn too_long(path: &str, text: &str, limit: usize) -> Option<Violation> {
    let lines = text.lines().count();
    (lines > limit).then(|| Violation {
        what: format!("{path}: {lines} lines"),
        rule: format!(
            "at most {limit} lines: a longer file holds parts that want names of their own"
        ),
    })
}

fn forbidden(path: &str, text: &str) -> Vec<Violation> {
    let found = |(number, line): (usize, &str)| {
        let (what, reason) = FORBIDDEN_IN_RUST.iter().find(|(what, _)| line.contains(what))?;
        let rule = format!("no `{what}` in a source file: {reason}");
        Some(Violation { what: format!("{path}:{}", number + 1), rule })
    };
    text.lines().enumerate().filter_map(found).collect()
}

/// The files under `root` that [`check`] is for, sorted, relative to `root`. Build outputs and hidden folders are left out.
///
/// # Errors
/// When a folder cannot be read.
pub fn files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                if !is_skipped(&entry.file_name().to_string_lossy()) {
                    folders.push(path);
                }
            } else if is_checked(&path) {
                found.push(path.strip_prefix(root).unwrap_or(&path).to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_skipped(folder: &str) -> bool {
    folder.starts_with('.') || ["target", "node_modules", "__pycache__"].contains(&folder)
}

fn is_checked(path: &Path) -> bool {
    has_ending(path, SOURCE_ENDINGS) || path.ends_with("ARCHITECTURE.md")
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    path.extension().is_some_and(|ending| endings.iter().any(|known| ending == *known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_have_as_many_lines_as_the_limit() {
        assert_eq!(check("a.rs", &"x\n".repeat(MAX_FILE_LINES)), []);
        let found = check("a.rs", &"x\n".repeat(MAX_FILE_LINES + 1));
        assert_eq!(found[0].what, "a.rs: 801 lines");
        assert_eq!(
            check("ARCHITECTURE.md", &"x\n".repeat(301))[0].what,
            "ARCHITECTURE.md: 301 lines"
        );
    }

    #[test]
    fn unfinished_code_is_found_with_its_line() {
        for (what, _) in FORBIDDEN_IN_RUST {
            let found = check("a/b.rs", &format!("fn a() {{\n    {what}\n}}\n"));
            assert_eq!(found.len(), 1, "{what}");
            assert_eq!(found[0].what, "a/b.rs:2");
            assert!(found[0].rule.contains(what));
        }
    }

    #[test]
    fn other_languages_may_say_what_they_like() {
        assert_eq!(check("a.py", concat!("to", "do!\n")), []);
    }

    #[test]
    fn build_outputs_and_hidden_folders_are_left_out() {
        let root = tempfile::tempdir().expect("a folder");
        for file in
            ["src/a.rs", "target/b.rs", ".git/c.rs", "web/d.js", "e.lock", "ARCHITECTURE.md"]
        {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, "").expect("a file");
        }
        let found = files(root.path()).expect("files");
        assert_eq!(found, ["ARCHITECTURE.md", "src/a.rs", "web/d.js"].map(PathBuf::from));
    }
}
