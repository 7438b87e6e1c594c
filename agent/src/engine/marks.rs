//! Which models are computing, written where it outlives this process: if it ends without a word, the next one
//! knows who was at work, and does not blame a version on probation for what another one did.
//!
//! While no version is on probation nothing is written. Else each model's first run at a time and its last are noted by
//! one byte each (a microsecond), in a file that the system writes out when it likes: it is for crashes of the
//! agent, after which the system lives on, and says nothing of a device whose power failed.

use protocol::id::{ContentHash, ModelName};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Beside `state.db`.
const FILE: &str = "running";
/// Bundles that are noted; of others it is not known whether they run.
const BUNDLES_MAX: usize = 256;
/// A byte that says whether it runs, its hash, and the end of the line.
const LINE_BYTES: usize = 1 + 64 + 1;
/// The first line: which run of the device it was.
const BOOT_BYTES: usize = 64;

/// Why somebody will want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    /// A candidate is loaded, or answers in its shadow.
    Candidate,
    /// The active version is not trusted yet.
    Probation,
}

/// Who is at work.
pub(crate) struct Marks {
    /// Whether anybody will want to know.
    wanted: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// None where it cannot be made: then nobody is known.
    file: Option<File>,
    wanted_by: BTreeSet<(ModelName, Why)>,
    lines: BTreeMap<ContentHash, Line>,
}

struct Line {
    at: usize,
    /// Runs and loads under way.
    busy: usize,
    written: bool,
}

impl Inner {
    fn line(&mut self, bundle: ContentHash) -> Option<&mut Line> {
        let at = self.lines.len();
        if at >= BUNDLES_MAX && !self.lines.contains_key(&bundle) {
            return None;
        }
        Some(self.lines.entry(bundle).or_insert(Line { at, busy: 0, written: false }))
    }

    /// Writes down whether it runs, if that is not what stands there.
    fn note(&mut self, bundle: ContentHash, wanted: bool) {
        let Some(line) = self.lines.get_mut(&bundle) else { return };
        let busy = wanted && line.busy > 0;
        let Some(file) = self.file.as_ref().filter(|_| line.written != busy) else { return };
        let place = (BOOT_BYTES + line.at * LINE_BYTES) as u64;
        let mark = if busy { '1' } else { '0' };
        if file.write_all_at(format!("{mark}{bundle}\n").as_bytes(), place).is_ok() {
            line.written = busy;
        }
    }
}

impl Marks {
    /// What the process before this one left, and a fresh file. `boot` is the present run of the device.
    pub(crate) fn open(state_dir: &Path, boot: &str) -> (Arc<Self>, BTreeSet<ContentHash>) {
        let path = state_dir.join(FILE);
        let last = File::open(&path).and_then(|file| last(file, boot)).unwrap_or_default();
        let file = File::create(path).and_then(|file| {
            let mut line = boot.as_bytes().to_vec();
            line.resize(BOOT_BYTES - 1, b' ');
            line.push(b'\n');
            file.write_all_at(&line, 0)?;
            Ok(file)
        });
        let inner = Inner { file: file.ok(), ..Inner::default() };
        let marks = Self { wanted: AtomicBool::new(false), inner: Mutex::new(inner) };
        (Arc::new(marks), last)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on somebody will want to know, or does not any more.
    pub(crate) fn want(&self, model: &ModelName, why: Why, wanted: bool) {
        let mut inner = self.inner();
        match wanted {
            true => inner.wanted_by.insert((model.clone(), why)),
            false => inner.wanted_by.remove(&(model.clone(), why)),
        };
        let wanted = !inner.wanted_by.is_empty();
        if self.wanted.swap(wanted, Relaxed) != wanted {
            let all: Vec<ContentHash> = inner.lines.keys().copied().collect();
            all.into_iter().for_each(|bundle| inner.note(bundle, wanted));
        }
    }

    /// A bundle is at work until the guard goes.
    pub(crate) fn enter(self: &Arc<Self>, bundle: ContentHash) -> AtWork {
        let mut inner = self.inner();
        if let Some(line) = inner.line(bundle) {
            line.busy += 1;
            inner.note(bundle, self.wanted.load(Relaxed));
        }
        AtWork { marks: self.clone(), bundle }
    }
}

/// A run, or a load.
pub(crate) struct AtWork {
    marks: Arc<Marks>,
    bundle: ContentHash,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let mut inner = self.marks.inner();
        if let Some(line) = inner.line(self.bundle) {
            line.busy = line.busy.saturating_sub(1);
            inner.note(self.bundle, self.marks.wanted.load(Relaxed));
        }
    }
}

/// Who was at work when the process that wrote this ended, in this run of the device.
fn last(mut file: File, boot: &str) -> io::Result<BTreeSet<ContentHash>> {
    let mut text = String::new();
    let most = BOOT_BYTES + BUNDLES_MAX * LINE_BYTES;
    file.by_ref().take(most as u64).read_to_string(&mut text)?;
    let mut lines = text.lines();
    if boot.is_empty() || lines.next().map(str::trim_end) != Some(boot) {
        return Ok(BTreeSet::new());
    }
    Ok(lines.filter_map(|line| line.strip_prefix('1')?.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(number: u8) -> ContentHash {
        ContentHash::of(&[number])
    }

    #[test]
    fn the_next_process_knows_who_was_at_work_and_only_in_the_same_run_of_the_device() {
        let folder = tempfile::tempdir().unwrap();
        let check = |boot: &str, expected: &[u8]| {
            let (marks, last) = Marks::open(folder.path(), boot);
            let expected: BTreeSet<_> = expected.iter().map(|n| bundle(*n)).collect();
            assert_eq!(last, expected);
            marks
        };
        let model: ModelName = "m".parse().unwrap();
        let want = |marks: &Marks, wanted| marks.want(&model, Why::Probation, wanted);
        let marks = check("a", &[]);
        let first = marks.enter(bundle(1));
        want(&marks, true);
        let second = [marks.enter(bundle(2)), marks.enter(bundle(2))];
        drop(marks.enter(bundle(3)));
        let [one, other] = second;
        drop(one);
        drop(check("a", &[1, 2]));
        drop((first, other));

        let marks = check("a", &[]);
        want(&marks, true);
        let busy = marks.enter(bundle(4));
        drop(check("b", &[])); // the power failed in between
        drop(busy);

        let marks = check("b", &[]);
        let busy = marks.enter(bundle(5));
        drop(check("b", &[])); // nobody wanted to know
        want(&marks, true);
        want(&marks, false);
        drop(busy);
        drop(check("b", &[]));
    }
}
