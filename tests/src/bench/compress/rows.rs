//! What the table says of one model.

use serde_json::json;

use super::Judged;
use super::contest::Build;
use crate::bench::{Row, rounded};

impl Judged {
    /// The anchor's best build, and how many times as fast as float it is; none where float is.
    fn anchor(&self) -> Option<(&Build, f64)> {
        self.timed.anchor.map(|(place, speedup)| (&self.found.anchors[place], speedup))
    }

    /// Beside the anchor's best, or float.
    pub(super) fn size_ratio(&self) -> f64 {
        let theirs = self.anchor().map_or(self.found.float_bytes, |(anchor, _)| anchor.size_bytes);
        self.found.ours.size_bytes as f64 / theirs.max(1) as f64
    }

    /// How many times smaller than float.
    pub(super) fn shrink(&self) -> f64 {
        self.found.float_bytes as f64 / self.found.ours.size_bytes.max(1) as f64
    }

    pub(super) fn row(&self) -> Row {
        let megabytes = |bytes: u64| rounded(bytes as f64 / 1e6);
        let (ours, anchor) = (&self.found.ours, self.anchor());
        let theirs = anchor.map_or(self.found.float_bytes, |(a, _)| a.size_bytes);
        let float = (self.timed.float_us / 1e3, self.found.float_bytes as f64 / 1e6);
        Row(vec![
            ("model", json!(self.name)),
            ("float", json!(format!("{:.2} ms, {:.1} MB", float.0, float.1))),
            ("ours x float", json!(rounded(self.timed.ours))),
            ("MB", json!(megabytes(ours.size_bytes))),
            ("quality", json!(quality(ours))),
            ("anchor's best", json!(anchor.map_or("float", |(a, _)| &a.what))),
            ("x float", json!(anchor.map_or(1.0, |(_, speedup)| rounded(speedup)))),
            ("anchor MB", json!(megabytes(theirs))),
            ("its quality", json!(anchor.map_or_else(|| "-".to_owned(), |(a, _)| quality(a)))),
            ("speed ratio", json!(rounded(self.timed.beside))),
            ("size ratio", json!(rounded(self.size_ratio()))),
        ])
    }

    pub(super) fn cost(&self) -> Row {
        let (own, theirs) = self.timed.static_seconds.unwrap_or_default();
        let ours = &self.found.ours;
        let usable = self.found.anchors.iter().filter(|a| a.drop <= self.target).count();
        let most = self.found.anchors.iter().map(|a| a.peak_mb).fold(0.0, f64::max);
        Row(vec![
            ("model", json!(self.name)),
            ("chosen", json!(ours.what)),
            ("search s", json!(ours.seconds.round())),
            ("peak MB", json!(ours.peak_mb.round())),
            ("anchor's most MB", json!(most.round())),
            ("within the target", json!(format!("{usable} of {}", self.found.anchors.len()))),
            ("one static build s", json!(rounded(own))),
            ("anchor's s", json!(rounded(theirs))),
            ("lines float", json!(self.found.float.lines.map(rounded))),
        ])
    }
}

fn quality(build: &Build) -> String {
    let quality = &build.worth.quality;
    let share = |name, value: Option<f64>| {
        value.map_or_else(String::new, |value| format!(" {name} {value:.3}"))
    };
    [
        format!("cos {:.4}", quality.cosine),
        share("agree", quality.agreement),
        share("acc", quality.accuracy),
        share("same", quality.lines),
        share("lines", build.worth.lines),
    ]
    .concat()
}
