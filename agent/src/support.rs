//! What somebody needs who helps from afar, in one archive: status, checks, configuration,
//! versions, the end of the log, and what lies in the state folder.
//!
//! Nothing secret leaves: keys and certificates are never opened for it, and every text goes
//! through one gate, [`redact::Gate`], before it is part of the archive.

mod listing;
mod log;
mod redact;

pub(crate) use crate::health::{Report, Subject, examine};
use ::link::durable::{self, Access};
use flate2::Compression;
use flate2::write::GzEncoder;
pub(crate) use redact::Gate;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The folder in the archive.
const FOLDER: &str = "outrigger-support";

/// Where to look.
pub(crate) struct Sources {
    pub(crate) state_dir: PathBuf,
    pub(crate) config_file: PathBuf,
    pub(crate) log_file: Option<PathBuf>,
}

/// One text of the archive.
pub(crate) struct SupportFile {
    pub(crate) name: &'static str,
    pub(crate) text: String,
}

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub(crate) struct SupportError {
    path: PathBuf,
    source: io::Error,
}

/// Gathers all texts. What cannot be had says so in its place.
pub(crate) fn collect(sources: &Sources) -> Vec<SupportFile> {
    let gate = Gate::new(&sources.state_dir);
    let report = examine(&Subject::read(&sources.state_dir, &sources.config_file));
    let status = crate::commands::status::ask(&sources.state_dir);
    let or_absent =
        |json: Option<String>| json.unwrap_or_else(|| "the agent does not run\n".into());
    let counters = status.as_ref().map(|s| pretty(&s.counters));
    let config = std::fs::read_to_string(&sources.config_file);
    let texts = [
        ("check.txt", report.to_text()),
        ("check.json", pretty(&report.to_json())),
        ("status.json", or_absent(status.as_ref().map(pretty))),
        ("counters.json", or_absent(counters)),
        ("agent.toml", config.unwrap_or_else(|e| format!("# {e}: the defaults hold\n"))),
        ("versions.json", pretty(&versions(&report))),
        ("state-folder.txt", listing::listing(&sources.state_dir)),
        ("log.txt", log::last_lines(&sources.state_dir, sources.log_file.as_deref())),
    ];
    texts.map(|(name, text)| SupportFile { name, text: gate.pass(&text) }).into()
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn versions(report: &Report) -> serde_json::Value {
    let runtime = report.checks.iter().find(|c| c.name == "onnxruntime-loads");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    serde_json::json!({
        "agent": crate::program::version(),
        "built_unix_s": env!("OUTRIGGER_BUILD_S").parse::<u64>().unwrap_or(0),
        "collected_unix_s": now_s(),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "kernel": kernel.trim(),
        "onnxruntime": runtime.map(|c| c.finding.detail.clone()),
    })
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Writes the archive, for its owner only.
pub(crate) fn write(files: &[SupportFile], output: &Path) -> Result<(), SupportError> {
    let written = archive(files).and_then(|bytes| durable::write(output, &bytes, Access::Private));
    written.map_err(|source| SupportError { path: output.to_owned(), source })
}

fn archive(files: &[SupportFile]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now_s());
        archive.append_data(
            &mut header,
            format!("{FOLDER}/{}", file.name),
            file.text.as_bytes(),
        )?;
    }
    archive.into_inner()?.finish()
}
