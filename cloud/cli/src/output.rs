//! Tables, JSON and words for people. Readable without colour and without a terminal.

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::Value;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Prints a line to stdout. A reader that went away, as in `outrigger ... | head`, is no error.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints JSON to stdout.
pub(crate) fn json(value: &Value) {
    line(&format!("{value:#}"));
}

/// Prints a table to stdout, or the words for an empty one to stderr.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>, empty: &str) {
    if rows.is_empty() {
        eprintln!("{empty}");
        return;
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().map(|h| h.to_uppercase()));
    table.add_rows(rows);
    for text in table.lines() {
        line(text.trim());
    }
}

/// The first digits of a hash.
pub(crate) fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

/// Bytes in the unit that suits them.
#[allow(clippy::cast_precision_loss)] // three digits are shown
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// A share as a percentage, or a dash.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

/// A share that somebody chose as a percentage, with all its digits.
pub(crate) fn exact_percent(share: f64) -> String {
    format!("{} %", (share * 1e6).round() / 1e4)
}

/// Unix seconds now.
pub(crate) fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// How long ago something was.
pub(crate) fn ago(then_s: i64, now_s: i64) -> String {
    match now_s.saturating_sub(then_s) {
        ..60 => "just now".to_owned(),
        s @ 60..3600 => format!("{} min ago", s / 60),
        s @ 3600..172_800 => format!("{} h ago", s / 3600),
        s => format!("{} days ago", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(
            [0, 999, 1_500, 2_340_000, 5_000_000_000].map(size),
            ["0 B", "999 B", "1.5 kB", "2.3 MB", "5.00 GB"]
        );
        assert_eq!(
            [0, 59, 61, 7_300, 900_000].map(|s| ago(0, s)),
            ["just now", "just now", "1 min ago", "2 h ago", "10 days ago"]
        );
        assert_eq!([percent(None), percent(Some(0.1234))], ["-", "12.3 %"]);
        assert_eq!([0.005, 0.01, 0.1].map(exact_percent), ["0.5 %", "1 %", "10 %"]);
        assert_eq!(short("0123456789abcdef"), "0123456789ab");
    }
}
