//! What the demo measured: a table for people, JSON for scripts, and the bar that it must clear.

use super::Asked;
use crate::people::new_table;
use crate::statistics::percentile_ms;
use comfy_table::Table;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The figures of one demo.
pub struct Report {
    /// Labelled images per run.
    pub images: usize,
    /// Share of right answers of the device's model alone.
    pub edge_only_accuracy: f64,
    /// Share of right answers of the cloud's model alone.
    pub cloud_only_accuracy: f64,
    /// Share of right answers of both together.
    pub hybrid_accuracy: f64,
    /// Latencies of the runs with one model alone.
    pub alone: BTreeMap<&'static str, Vec<Duration>>,
    /// Latencies of the hybrid run, by where the answer came from.
    pub placements: BTreeMap<String, Vec<Duration>>,
    /// Tensor bytes that went to the cloud in the hybrid run.
    pub uplink_bytes: u64,
    /// What happened while the cloud was gone.
    pub offline: Offline,
    /// Whether deferral resumed after the cloud came back.
    pub recovered: bool,
}

/// The requests during the outage.
#[derive(Debug, Default)]
pub struct Offline {
    requests: usize,
    answered: usize,
    degraded: usize,
    late: usize,
    latencies: Vec<Duration>,
}

impl Offline {
    /// Takes in the end of one request.
    pub(super) fn count(&mut self, answer: &anyhow::Result<Asked>) {
        self.requests += 1;
        let Ok(answer) = answer else { return };
        self.answered += 1;
        self.degraded += usize::from(answer.placement == "edge-degraded");
        self.late += usize::from(answer.latency > super::DEADLINE);
        self.latencies.push(answer.latency);
    }

    fn lost(&self) -> usize {
        self.requests - self.answered
    }
}

impl Report {
    fn deferral_rate(&self) -> f64 {
        self.placements.get("cloud").map_or(0, Vec::len) as f64 / self.images.max(1) as f64
    }

    /// The figures for scripts.
    pub fn to_json(&self) -> Value {
        let placement = |latencies: &Vec<Duration>| {
            json!({
                "share": latencies.len() as f64 / self.images.max(1) as f64,
                "p50_ms": percentile_ms(latencies, 50.0),
                "p99_ms": percentile_ms(latencies, 99.0),
            })
        };
        let placements: BTreeMap<_, _> =
            self.placements.iter().map(|(name, l)| (name, placement(l))).collect();
        json!({
            "images": self.images,
            "edge_only_accuracy": self.edge_only_accuracy,
            "cloud_only_accuracy": self.cloud_only_accuracy,
            "hybrid_accuracy": self.hybrid_accuracy,
            "deferral_rate": self.deferral_rate(),
            "placements": placements,
            "uplink_bytes": self.uplink_bytes,
            "offline": {
                "requests": self.offline.requests,
                "answered": self.offline.answered,
                "degraded": self.offline.degraded,
                "late": self.offline.late,
                "lost": self.offline.lost(),
            },
            "recovered": self.recovered,
        })
    }

    /// Whether the demo showed what it is there to show.
    ///
    /// # Errors
    /// What it did not show.
    pub fn check(&self) -> anyhow::Result<()> {
        let claims = [
            (
                self.hybrid_accuracy >= self.cloud_only_accuracy - 0.01,
                "hybrid accuracy within 1 point of the cloud's",
            ),
            (self.deferral_rate() <= 0.25, "at most a quarter deferred"),
            (self.offline.lost() == 0, "no request lost while the cloud was gone"),
            (self.offline.degraded > 0, "degraded answers while the cloud was gone"),
            (self.recovered, "deferral again after the cloud came back"),
        ];
        for (holds, claim) in claims {
            anyhow::ensure!(holds, "this run did not show: {claim}");
        }
        Ok(())
    }

    fn accuracy_table(&self) -> Table {
        let mut table = new_table(&["who answered", "accuracy", "p50", "p99", "asked the cloud"]);
        let all: Vec<Duration> = self.placements.values().flatten().copied().collect();
        let empty = Vec::new();
        let alone = |name| self.alone.get(name).unwrap_or(&empty);
        let rows = [
            ("device alone", self.edge_only_accuracy, alone("edge"), 0.0),
            ("cloud alone", self.cloud_only_accuracy, alone("cloud"), 1.0),
            ("Outrigger", self.hybrid_accuracy, &all, self.deferral_rate()),
        ];
        for (name, accuracy, latencies, asked) in rows {
            table.add_row([
                name.to_owned(),
                percent(accuracy),
                milliseconds(latencies, 50.0),
                milliseconds(latencies, 99.0),
                percent(asked),
            ]);
        }
        table
    }

    fn placement_table(&self) -> Table {
        let mut table = new_table(&["placement", "share", "p50", "p99"]);
        for (name, latencies) in &self.placements {
            table.add_row([
                name.clone(),
                percent(latencies.len() as f64 / self.images.max(1) as f64),
                milliseconds(latencies, 50.0),
                milliseconds(latencies, 99.0),
            ]);
        }
        table
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn milliseconds(latencies: &[Duration], percent: f64) -> String {
    format!("{:.2} ms", percentile_ms(latencies, percent))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{} labelled images (Fashion-MNIST test set), through the HTTP API of the agent:\n",
            self.images
        )?;
        writeln!(f, "{}\n", self.accuracy_table())?;
        writeln!(
            f,
            "Outrigger's answers, by where they came from:\n\n{}\n",
            self.placement_table()
        )?;
        let kilobytes = self.uplink_bytes as f64 / 1000.0;
        writeln!(
            f,
            "Sent to the cloud: {kilobytes:.1} kB of {:.1} kB.",
            self.images as f64 * 0.784
        )?;
        let o = &self.offline;
        writeln!(
            f,
            "While the cloud was gone: {} requests, {} answered ({} of them edge-degraded), {} late, {} lost; p99 {}.",
            o.requests,
            o.answered,
            o.degraded,
            o.late,
            o.lost(),
            milliseconds(&o.latencies, 99.0),
        )?;
        let back =
            if self.recovered { "deferral resumed by itself" } else { "deferral did NOT resume" };
        writeln!(f, "After it came back: {back}.")
    }
}
