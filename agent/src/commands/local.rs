//! One call to the running agent over its Unix socket, which needs no token.

use super::run::{ADDRESS_FILE, SOCKET_SCHEME};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the agent answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// The socket of an agent that runs, or did not clean up.
pub(super) fn socket(state_dir: &Path) -> Option<PathBuf> {
    let addresses = std::fs::read_to_string(state_dir.join(ADDRESS_FILE)).ok()?;
    addresses.lines().find_map(|line| line.strip_prefix(SOCKET_SCHEME)).map(PathBuf::from)
}

/// HTTP/1.0 ends an answer by closing, so that there is nothing to parse but the first line and one
/// empty line.
pub(super) fn call(
    socket: &Path,
    method: &str,
    path: &str,
    patience: Duration,
) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
    Ok(Answer { status, body })
}
