//! One line for every request to a model: who asked, what became of it, and where the time went. A key
//! is named by its id; secrets never get here.
//!
//! A request only hands its line over. A thread writes them, in groups; when it cannot keep up, lines
//! are dropped and counted, and no request waits. A file that is full is renamed to `FILE.1`, in the
//! place of the one before, so that the log takes a bounded room.

use link::counter::Counter;
use protocol::id::Version;
use serde_json::json;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::requests::Ended;
use crate::settings::{self, LogFormat};

/// Lines that wait to be written; more are dropped.
pub const LINES_MAX: usize = 8192;

/// The log, on or off.
#[derive(Debug, Default)]
pub struct AccessLog {
    lines: RwLock<Option<SyncSender<Ended>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    tally: Arc<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    written: Counter,
    dropped: Counter,
}

/// What became of lines so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// In the file, or on their way there.
    pub written: u64,
    /// Lost, because too many waited or the file could not be written.
    pub dropped: u64,
}

impl AccessLog {
    /// A log as the settings say; none where they name no file. Relative paths are in `folder`.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(settings: &settings::AccessLog, folder: &Path) -> io::Result<Self> {
        let log = Self::default();
        let Some(target) = Target::open(settings, folder)? else { return Ok(log) };
        let (sender, lines) = sync_channel(LINES_MAX);
        let (tally, format) = (log.tally.clone(), settings.format);
        let run = move || keep(&lines, target, format, &tally);
        let thread = std::thread::Builder::new().name("access-log".into()).spawn(run)?;
        *log.lines.write().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        *log.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(log)
    }

    /// Hands a line over, if there is a log.
    pub fn write(&self, ended: &Ended) {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(lines) = &*lines
            && lines.try_send(ended.clone()).is_err()
        {
            self.tally.dropped.add(1);
        }
    }

    /// Writes what waits, and no more.
    pub fn finish(&self) {
        drop(self.lines.write().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join(); // a panic in it was reported
        }
    }

    /// What became of lines so far.
    pub fn counts(&self) -> Counts {
        Counts { written: self.tally.written.get(), dropped: self.tally.dropped.get() }
    }
}

/// Writes lines until nobody can hand over any more. Whatever waits is written in one go.
fn keep(lines: &Receiver<Ended>, mut target: Target, format: LogFormat, tally: &Tally) {
    while let Ok(first) = lines.recv() {
        let mut waiting = Some(first);
        let mut count = 0;
        let mut written = Ok(());
        while let Some(ended) = waiting {
            written = written.and_then(|()| target.line(&line(&ended, format)));
            count += 1;
            waiting = lines.try_recv().ok();
        }
        match written.and_then(|()| target.flush()) {
            Ok(()) => tally.written.add(count),
            Err(error) => {
                tally.dropped.add(count);
                tracing::warn!(%error, "the access log cannot be written");
            }
        }
    }
}

fn line(ended: &Ended, format: LogFormat) -> String {
    let mut time = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut time)); // a String takes everything
    let Ended { identity, model, version, outcome, .. } = ended;
    let model = model.as_ref().map_or("-", |model| model.as_str());
    let version = version.map(Version::get);
    let status = outcome.as_str();
    let (tenant, caller) = (identity.tenant.as_str(), &*identity.caller);
    let took_us = u64::try_from(ended.took.as_micros()).unwrap_or(u64::MAX);
    let receive_us = ended.receive.and_then(|time| u64::try_from(time.as_micros()).ok());
    let Ended { bytes_in, bytes_out, queue_us, infer_us, .. } = ended;
    match format {
        LogFormat::Json => json!({
            "time": time, "tenant": tenant, "caller": caller, "model": model, "version": version,
            "placement": "cloud", "status": status, "bytes_in": bytes_in, "bytes_out": bytes_out,
            "receive_us": receive_us, "queue_us": queue_us, "infer_us": infer_us,
            "took_us": took_us,
        })
        .to_string(),
        LogFormat::Text => {
            let version = version.map_or_else(|| "-".to_owned(), |version| version.to_string());
            let mut text = format!("{time} {tenant} {caller:?} {model}@{version} cloud {status}");
            let _ = write!(text, " in={bytes_in} out={bytes_out} queue_us={queue_us}");
            let _ = write!(text, " infer_us={infer_us} took_us={took_us}");
            text
        }
    }
}

/// Where lines go.
enum Target {
    Stdout(io::Stdout),
    File(Rotated),
}

/// A file with a largest size, and the one before it.
struct Rotated {
    path: PathBuf,
    file: BufWriter<File>,
    size_bytes: u64,
    max_bytes: u64,
}

impl Target {
    fn open(settings: &settings::AccessLog, folder: &Path) -> io::Result<Option<Self>> {
        Ok(match settings.file.as_str() {
            "" => None,
            "-" => Some(Self::Stdout(io::stdout())),
            file => Some(Self::File(Rotated::open(folder.join(file), settings.max_bytes())?)),
        })
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::Stdout(out) => writeln!(out, "{line}"),
            Self::File(file) => file.line(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File(file) => file.file.flush(),
        }
    }
}

impl Rotated {
    fn open(path: PathBuf, max_bytes: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size_bytes = file.metadata()?.len();
        Ok(Self { path, file: BufWriter::new(file), size_bytes, max_bytes })
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        let bytes = line.len() as u64 + 1;
        if self.size_bytes > 0 && self.size_bytes + bytes > self.max_bytes {
            self.rotate()?;
        }
        self.size_bytes += bytes;
        writeln!(self.file, "{line}")
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let mut before = self.path.clone().into_os_string();
        before.push(".1");
        std::fs::rename(&self.path, before)?;
        *self = Self::open(self.path.clone(), self.max_bytes)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
