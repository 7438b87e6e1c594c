//! Who may read what: secrets have mode 0600, and nobody else may write into the state folder.

use super::Finding;
use crate::identity::{ENROLMENT_FILE, KEY_FILE};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Files that nobody but their owner may read or write.
const PRIVATE_FILES: [&str; 2] = [KEY_FILE, ENROLMENT_FILE];
/// Files and folders that nobody but their owner may write.
const OWN: [&str; 6] = ["", "agent.toml", "bundles", "ca.pem", "device.pem", "state.db"];
/// All bits of group and others.
const OTHERS: u32 = 0o077;
/// What lets group or others write.
const OTHERS_WRITE: u32 = 0o022;

pub(super) fn check(state_dir: &Path) -> Finding {
    if !state_dir.is_dir() {
        return Finding::skipped(format!("there is no {}", state_dir.display()));
    }
    let private = PRIVATE_FILES.iter().map(|name| (name, OTHERS));
    let own = OWN.iter().map(|name| (name, OTHERS_WRITE));
    let open: Vec<_> = private
        .chain(own)
        .filter_map(|(name, never)| opened(&state_dir.join(name), never))
        .collect();
    if open.is_empty() {
        return Finding::ok("secrets are readable by their owner only");
    }
    let texts: Vec<_> =
        open.iter().map(|(path, mode)| format!("{path} has mode {mode:04o}")).collect();
    let paths: Vec<_> = open.iter().map(|(path, _)| path.as_str()).collect();
    Finding::failed(texts.join(", ")).hint(format!(
        "chmod go-rwx {}; if others could read the key, enrol again with --replace",
        paths.join(" ")
    ))
}

/// The path and mode of what has one of the bits that it must never have.
fn opened(path: &Path, never: u32) -> Option<(String, u32)> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    (mode & never != 0).then(|| (path.display().to_string(), mode))
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use std::fs::{Permissions, set_permissions, write};

    #[test]
    fn what_others_may_read_or_write_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let set = |name: &str, mode| {
            set_permissions(folder.path().join(name), Permissions::from_mode(mode)).unwrap();
        };
        for (name, good, bad) in
            [(KEY_FILE, 0o600, 0o640), ("agent.toml", 0o644, 0o666), ("", 0o755, 0o777)]
        {
            if !name.is_empty() {
                write(folder.path().join(name), "").unwrap();
            }
            set(name, good);
            assert_eq!(check(folder.path()).outcome, Outcome::Ok, "{name}");
            set(name, bad);
            let finding = check(folder.path());
            assert_eq!(finding.outcome, Outcome::Failed, "{name}");
            assert!(finding.hint.contains("chmod") && finding.detail.contains(name), "{finding:?}");
            set(name, good);
        }
        assert_eq!(check(&folder.path().join("absent")).outcome, Outcome::Skipped);
    }
}
