//! The last lines of this process's log, in memory: what an operator who asks can be told without a file or a journal that
//! this process may not read. What is below `info` is not kept: it would push out what matters.

use protocol::limits::LOG_KEPT_MAX_BYTES;
use protocol::question::cut;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::registry::LookupSpan;

/// A longer line is cut.
const LINE_MAX_BYTES: usize = 2 << 10;

/// The last lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeptLines(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<(Instant, String)>,
    bytes: usize,
}

/// What was asked for of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Excerpt {
    /// The newest of them, oldest first.
    pub(crate) text: String,
    /// Lines that were asked for and found no place.
    pub(crate) left_out: u64,
}

impl KeptLines {
    /// What keeps them.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(self.clone());
        lines.with_filter(LevelFilter::INFO)
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, line: &str, now: Instant) {
        let line = cut(line, LINE_MAX_BYTES);
        let mut all = self.lock();
        all.bytes += line.len();
        all.lines.push_back((now, line.to_owned()));
        while all.bytes > LOG_KEPT_MAX_BYTES {
            let Some((_, oldest)) = all.lines.pop_front() else { return };
            all.bytes -= oldest.len();
        }
    }

    /// The newest lines: at most so many, of the time `within`, and of `max_bytes` after `pass` has looked at each.
    pub(crate) fn newest(
        &self,
        lines: usize,
        within: Option<Duration>,
        max_bytes: usize,
        pass: impl Fn(&str) -> String,
    ) -> Excerpt {
        let is_recent =
            |kept: &&(Instant, String)| within.is_none_or(|within| kept.0.elapsed() <= within);
        let asked: Vec<String> = {
            let all = self.lock();
            let newest = all.lines.iter().rev().take_while(is_recent).take(lines);
            newest.map(|(_, line)| line.clone()).collect()
        };
        let mut bytes = 0;
        let passed = asked.iter().map(|line| pass(line)).map_while(|line| {
            bytes += line.len() + 1;
            (bytes <= max_bytes).then_some(line)
        });
        let mut passed: Vec<String> = passed.collect();
        passed.reverse();
        let left_out = (asked.len() - passed.len()) as u64;
        Excerpt { text: passed.into_iter().map(|line| line + "\n").collect(), left_out }
    }
}

/// A line comes in one piece.
impl io::Write for KeptLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for line in String::from_utf8_lossy(bytes).lines() {
            self.keep(line, Instant::now());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for KeptLines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    const ALL: usize = usize::MAX;

    fn of(lines: &[&str]) -> KeptLines {
        let kept = KeptLines::default();
        lines.iter().for_each(|line| kept.keep(line, Instant::now()));
        kept
    }

    #[test]
    fn the_newest_come_oldest_first_and_what_finds_no_place_is_counted() {
        let kept = of(&["one", "two", "three"]);
        let check = |lines, max_bytes, text: &str, left_out| {
            let found = kept.newest(lines, None, max_bytes, str::to_owned);
            assert_eq!(found, Excerpt { text: text.to_owned(), left_out });
        };
        check(ALL, ALL, "one\ntwo\nthree\n", 0);
        check(2, ALL, "two\nthree\n", 0);
        check(ALL, 10, "two\nthree\n", 1);
        check(0, ALL, "", 0);
        let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        let kept = KeptLines::default();
        kept.keep("old", long_ago);
        kept.keep("new", Instant::now());
        let recent = kept.newest(ALL, Some(Duration::from_secs(30)), ALL, str::to_owned);
        assert_eq!(recent.text, "new\n");
    }

    #[test]
    fn a_flood_of_long_lines_pushes_out_the_oldest() {
        let kept = KeptLines::default();
        let long = "ä".repeat(LINE_MAX_BYTES);
        (0..1000).for_each(|_| kept.keep(&long, Instant::now()));
        let all = kept.lock();
        assert!(all.bytes <= LOG_KEPT_MAX_BYTES && all.bytes > LOG_KEPT_MAX_BYTES / 2);
        assert!(all.lines.iter().all(|(_, line)| line.len() <= LINE_MAX_BYTES));
    }

    #[test]
    fn info_and_above_are_kept() {
        let kept = KeptLines::default();
        let subscriber = tracing_subscriber::registry().with(kept.layer());
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("quiet");
            tracing::warn!(answer = 42, "loud");
        });
        let text = kept.newest(ALL, None, ALL, str::to_owned).text;
        assert!(text.contains("WARN") && text.contains("loud answer=42"), "{text}");
        assert!(!text.contains("quiet") && text.lines().count() == 1, "{text}");
    }
}
