//! Benches: what they have in common is the report.

pub mod agent;
mod beside;
pub mod cascade;
pub mod compress;
pub mod delta;
pub mod drift;
pub mod fleet;
pub mod footprint;
pub mod gpu;
pub mod link;
pub mod plot;
pub mod revocation;
pub mod serve;
pub mod telemetry;
pub mod thrift;
#[cfg(target_os = "linux")]
pub mod wan;

use crate::people::new_table;
use comfy_table::Table;
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::fmt;

/// The figures of one bench.
#[derive(Debug, Clone, Serialize)]
pub struct BenchReport {
    /// The bench.
    pub name: &'static str,
    /// One per measured thing; those with the same columns are shown as one table.
    pub rows: Vec<Row>,
    /// What is to be reached.
    pub goals: Vec<Goal>,
}

/// The figures of one measured thing, in the order in which they are shown.
#[derive(Debug, Clone)]
pub struct Row(pub Vec<(&'static str, Value)>);

impl Row {
    fn columns(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.iter().map(|(name, _)| *name)
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// A number with three decimals.
pub fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// Something to be reached.
#[derive(Debug, Clone, Serialize)]
pub struct Goal {
    /// What is measured, with its unit.
    pub name: &'static str,
    /// Which direction is better.
    pub better: Better,
    /// The bar.
    pub goal: f64,
    /// What was measured.
    pub measured: f64,
    /// Whether the bar was cleared.
    pub met: bool,
}

/// Which direction is better.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Less is better.
    Lower,
    /// More is better.
    Higher,
}

impl Goal {
    /// A goal for something of which less is better.
    pub fn at_most(name: &'static str, goal: f64, measured: f64) -> Self {
        let met = measured <= goal;
        Self { name, better: Better::Lower, goal, measured: rounded(measured), met }
    }

    /// A goal for something of which more is better.
    pub fn at_least(name: &'static str, goal: f64, measured: f64) -> Self {
        let met = measured >= goal;
        Self { name, better: Better::Higher, goal, measured: rounded(measured), met }
    }
}

impl BenchReport {
    /// Fails where a goal was not met, for those benches that are a proof.
    ///
    /// # Errors
    /// The names of the goals.
    pub fn check(&self) -> anyhow::Result<()> {
        let missed: Vec<&str> = self.goals.iter().filter(|g| !g.met).map(|g| g.name).collect();
        anyhow::ensure!(missed.is_empty(), "not met: {}", missed.join("; "));
        Ok(())
    }
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rows in self.rows.chunk_by(|a, b| a.columns().eq(b.columns())) {
            writeln!(f, "{}", rows_table(rows))?;
        }
        let mut table = new_table(&["goal", "at", "measured", ""]);
        for goal in &self.goals {
            let sign = match goal.better {
                Better::Lower => "<=",
                Better::Higher => ">=",
            };
            let met = if goal.met { "met" } else { "NOT met" };
            table.add_row([
                goal.name.to_owned(),
                format!("{sign} {}", goal.goal),
                format!("{:.3}", goal.measured),
                met.to_owned(),
            ]);
        }
        write!(f, "{table}")
    }
}

fn rows_table(rows: &[Row]) -> Table {
    let columns = rows.first().map_or(&[][..], |row| &row.0);
    let header: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let mut table = new_table(&header);
    for row in rows {
        table.add_row(row.0.iter().map(|(_, value)| match value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        }));
    }
    table
}
