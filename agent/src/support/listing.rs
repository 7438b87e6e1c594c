//! What lies in the state folder: modes, sizes and names, never contents.

use std::fmt::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// More entries than a device ever has.
const ENTRIES_MAX: usize = 10_000;
const DEPTH_MAX: usize = 4;

/// One line per file and folder: mode, owner, bytes, path.
pub(super) fn listing(state_dir: &Path) -> String {
    let mut lines = Vec::new();
    walk(state_dir, state_dir, DEPTH_MAX, &mut lines);
    lines.sort_by(|a, b| a.1.cmp(&b.1));
    let mut text = String::new();
    for (line, _) in &lines {
        let _ = writeln!(text, "{line}"); // writing to a String cannot fail
    }
    text
}

fn walk(root: &Path, path: &Path, depth: usize, lines: &mut Vec<(String, String)>) {
    let shown = match path.strip_prefix(root) {
        Ok(inner) if inner.as_os_str().is_empty() => ".".to_owned(),
        Ok(inner) => inner.display().to_string(),
        Err(_) => path.display().to_string(),
    };
    // A link is listed as itself and not followed: it may lead anywhere.
    match std::fs::symlink_metadata(path) {
        Ok(data) => {
            let mode = data.permissions().mode();
            lines.push((format!("{mode:06o} {:>5} {:>12} {shown}", data.uid(), data.len()), shown));
            if !data.is_dir() || depth == 0 {
                return;
            }
        }
        Err(error) => return lines.push((format!("{shown}: {error}"), shown)),
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if lines.len() < ENTRIES_MAX {
            walk(root, &entry.path(), depth - 1, lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_sizes_but_no_contents() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bundles")).unwrap();
        std::fs::write(folder.path().join("bundles/x"), "twelve bytes").unwrap();
        std::os::unix::fs::symlink("/etc", folder.path().join("elsewhere")).unwrap();
        let text = listing(folder.path());
        assert!(text.contains("bundles/x") && text.contains(" 12 "), "{text}");
        assert!(!text.contains("twelve") && !text.contains("elsewhere/"), "{text}");
        assert!(listing(&folder.path().join("absent")).contains("No such file"));
    }
}
