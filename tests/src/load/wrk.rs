//! `wrk`, a load generator that nobody here wrote, asked for what our own callers ask.

use super::{Ask, Target};
use anyhow::{Context, bail, ensure};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// What it found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Answers.
    pub calls: usize,
    /// Answers per second.
    pub per_second: f64,
    /// The median time to an answer, in milliseconds.
    pub p50_ms: f64,
    /// The same of the slowest hundredth.
    pub p99_ms: f64,
}

/// Whether it is installed; the reason is printed where it is not.
pub fn is_here() -> bool {
    let found = Command::new("wrk").arg("--version").output().is_ok();
    if !found {
        println!("SKIPPED: wrk is not in PATH (a package of Debian and Ubuntu)");
    }
    found
}

/// Calls from so many connections for so long. It takes any answer of the right status for one: what
/// is in them was looked at by our own callers.
///
/// # Errors
/// It fails, or an answer is none.
pub fn call_for(
    target: &Target,
    folder: &Path,
    connections: usize,
    seconds: u32,
) -> anyhow::Result<Measured> {
    let Ask::Http(request) = &target.ask else { bail!("wrk speaks no gRPC") };
    let scheme = if target.tls.is_some() { "https" } else { "http" };
    let (path, script) = script(request, folder)?;
    let output = Command::new("wrk")
        .args(["--threads", "1", "--latency", "--timeout", "10s"])
        .args(["--connections", &connections.to_string(), "--duration", &format!("{seconds}s")])
        .arg("--script")
        .arg(script)
        .arg(format!("{scheme}://{}{path}", target.address))
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk failed: {said}");
    Measured::parse(&said).with_context(|| format!("wrk said: {said}"))
}

/// The path, and a script for the rest of a request, which `wrk` puts together by itself.
fn script(request: &[u8], folder: &Path) -> anyhow::Result<(String, std::path::PathBuf)> {
    let end = request.windows(4).position(|window| window == b"\r\n\r\n").context("no head")?;
    let head = std::str::from_utf8(&request[..end])?;
    let body = folder.join("wrk-body");
    std::fs::write(&body, &request[end + 4..])?;
    let mut lines = head.split("\r\n");
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).context("no path")?;
    let mut script = format!(
        "wrk.method = \"POST\"\nlocal file = io.open({:?}, \"rb\")\n\
         wrk.body = file:read(\"*a\")\nfile:close()\n",
        body.to_string_lossy()
    );
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        if !["Host", "Content-Length"].contains(&name) {
            writeln!(script, "wrk.headers[{name:?}] = {value:?}")?;
        }
    }
    let file = folder.join("wrk.lua");
    std::fs::write(&file, script)?;
    Ok((path.to_owned(), file))
}

impl Measured {
    fn parse(said: &str) -> Option<Self> {
        let lines = || said.lines().map(str::trim);
        let behind = |start: &str| lines().find_map(|line| line.strip_prefix(start));
        let bad = ["Non-2xx", "Socket errors"].iter().any(|bad| behind(bad).is_some());
        (!bad).then_some(())?;
        let calls = lines().find(|line| line.contains(" requests in "))?.split(' ').next()?;
        Some(Self {
            calls: calls.parse().ok()?,
            per_second: behind("Requests/sec:")?.trim().parse().ok()?,
            p50_ms: milliseconds(behind("50%")?)?,
            p99_ms: milliseconds(behind("99%")?)?,
        })
    }
}

fn milliseconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let units = [("us", 1000.0), ("ms", 1.0), ("s", 0.001)];
    let found = units.iter().find_map(|(unit, in_ms)| Some((text.strip_suffix(unit)?, in_ms)));
    let (number, in_ms) = found?;
    Some(number.parse::<f64>().ok()? / in_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_words_are_understood() {
        let said = "  Latency Distribution\n     50%  118.00us\n     99%    1.10ms\n  \
                    28123 requests in 1.00s, 9.00MB read\nRequests/sec:  28120.50\n";
        let measured = Measured { calls: 28123, per_second: 28120.5, p50_ms: 0.118, p99_ms: 1.1 };
        assert_eq!(Measured::parse(said), Some(measured));
        let refused = format!("{said}  Non-2xx or 3xx responses: 3\n");
        assert_eq!(Measured::parse(&refused), None);
    }
}
