//! The end of the agent's log: a file where there is one, the service's journal otherwise.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};

const LAST_BYTES: u64 = 256 << 10;
const LAST_LINES: &str = "1000";
/// Name of the service's unit.
const UNIT: &str = "outrigger-agent";

/// The last lines, or why there are none.
pub(super) fn last_lines(state_dir: &Path, named: Option<&Path>) -> String {
    let beside = state_dir.join("agent.log");
    let file = named.or(Some(&beside)).filter(|f| named.is_some() || f.is_file());
    match file {
        Some(file) => end_of(file).unwrap_or_else(|e| format!("{}: {e}\n", file.display())),
        None => {
            journal().unwrap_or_else(|| "no log: neither a file nor a readable journal\n".into())
        }
    }
}

/// The end of a file, from the first whole line on.
fn end_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(LAST_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(LAST_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let whole = if start == 0 { 0 } else { text.find('\n').map_or(text.len(), |at| at + 1) };
    Ok(text[whole..].to_owned())
}

fn journal() -> Option<String> {
    let arguments = ["--unit", UNIT, "--lines", LAST_LINES, "--no-pager", "--quiet"];
    let mut command = Command::new("journalctl");
    let output =
        command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success() && !text.trim().is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_of_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.log");
        let line = "x".repeat(999) + "\n";
        std::fs::write(&path, line.repeat(1000)).unwrap();
        let text = last_lines(folder.path(), None);
        assert!((text.len() as u64) <= LAST_BYTES && text.starts_with("xxx"));
        assert!(text.lines().all(|line| line.len() == 999));
        assert!(last_lines(folder.path(), Some(&folder.path().join("absent"))).contains("No such"));
    }
}
