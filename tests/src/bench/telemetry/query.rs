//! A question to many records, by model and day: `outrigger telemetry query` beside DuckDB on the same Parquet,
//! both as a command from its start to its end, in turn.

use super::super::{Goal, Row, rounded};
use super::{GROUP_RECORDS, SEGMENT_FRAMES, event, sealer};
use crate::python::Environment;
use crate::statistics::median;
use crate::world::Operator;
use anyhow::{Context, ensure};
use protocol::id::DeviceId;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;
use telemetry::key::PrivateKey;
use telemetry::wire::Record;
use telemetry::wire::record::What;

/// Rounds of both.
const ROUNDS: usize = 5;
const MODELS: [&str; 4] = ["faces", "fashion", "speech", "vision"];
const MONTH_MS: u64 = 30 * 24 * 3600 * 1000;
const QUESTION: &str = "SELECT day, model, count(*) AS requests, avg(total_us) AS mean_us, max(total_us) AS max_us \
    FROM inference GROUP BY day, model ORDER BY day, model";

/// Makes a dataset of so many records, as an operator would, and asks.
pub(super) fn run(records: u64, rows: &mut Vec<Row>, goals: &mut Vec<Goal>) -> anyhow::Result<()> {
    let Some(duckdb) = Environment::with(&["duckdb==2.0.1"])? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let operator = Operator::new(&folder.path().join("operator"));
    let key = PrivateKey::from_entropy(&link::entropy());
    let key_file = folder.path().join("analytics.key");
    std::fs::write(&key_file, key.to_hex())?;
    let segments = records.div_ceil(GROUP_RECORDS * SEGMENT_FRAMES);
    seal(&folder.path().join("pulled"), segments, &key)?;
    let dataset = folder.path().join("dataset");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (pulled, into) = (text(&folder.path().join("pulled")), text(&dataset));
    let begun = Instant::now();
    operator.run(&["telemetry", "import", &pulled, "--into", &into, "--key", &text(&key_file)])?;
    let imported_s = begun.elapsed().as_secs_f64();

    let ours = || operator.run(&["telemetry", "query", "--dataset", &into, "--json", QUESTION]);
    let theirs = || duckdb.run("duckdb_query.py", &[&into, QUESTION]);
    let (mut took, mut inside) = ([Vec::new(), Vec::new()], Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let answer = lines(&ours()?)?;
        took[0].push(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        let mut other = lines(&theirs()?)?;
        took[1].push(begun.elapsed().as_secs_f64());
        let own = other.pop().context("DuckDB says how long it took")?;
        inside.push(own["took_s"].as_f64().context("a time")?);
        ensure!(same(&answer, &other), "two answers: {answer:?} {other:?}");
    }
    #[allow(clippy::cast_precision_loss)] // some millions
    let records = (segments * GROUP_RECORDS * SEGMENT_FRAMES) as f64;
    let seconds = [median(&took[0]), median(&took[1]), median(&inside)];
    rows.push(Row(vec![
        ("records opened into Parquet", json!(records)),
        ("records_per_s", json!((records / imported_s).round())),
    ]));
    let subjects =
        ["outrigger telemetry query", "DuckDB, as a command", "DuckDB, the question alone"];
    for (subject, seconds) in subjects.into_iter().zip(seconds) {
        rows.push(Row(vec![
            ("a question by model and day", json!(subject)),
            ("records", json!(records)),
            ("ms", json!(rounded(seconds * 1000.0))),
        ]));
    }
    goals.push(Goal::at_most("a question's time, of DuckDB's", 2.0, seconds[0] / seconds[1]));
    Ok(())
}

fn lines(text: &str) -> anyhow::Result<Vec<Value>> {
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// The same days, models and numbers; means but for their last bits.
fn same(answer: &[Value], other: &[Value]) -> bool {
    let alike = |(a, b): (&Value, &Value)| {
        let mean = |row: &Value| row["mean_us"].as_f64().unwrap_or(f64::NAN);
        ["day", "model", "requests", "max_us"].iter().all(|column| a[column] == b[column])
            && (mean(a) - mean(b)).abs() < 1e-6 * mean(a)
    };
    answer.len() == other.len() && !answer.is_empty() && answer.iter().zip(other).all(alike)
}

/// Segments as `outrigger telemetry pull` leaves them: of four models, over a month.
fn seal(folder: &Path, segments: u64, key: &PrivateKey) -> anyhow::Result<()> {
    let device: DeviceId = "d-12345678".parse()?;
    std::fs::create_dir_all(folder)?;
    let step_ms = MONTH_MS / (segments * SEGMENT_FRAMES * GROUP_RECORDS).max(1);
    for segment in 0..segments {
        let (mut sealer, mut bytes) = sealer(&device, key, segment + 1)?;
        for frame in 0..SEGMENT_FRAMES {
            let first = (segment * SEGMENT_FRAMES + frame) * GROUP_RECORDS;
            let records = first..first + GROUP_RECORDS;
            bytes.extend(sealer.frame(records.map(|number| spread(number, step_ms)).collect())?);
        }
        std::fs::write(folder.join(format!("{:012}.seg", segment + 1)), bytes)?;
    }
    Ok(())
}

fn spread(number: u64, step_ms: u64) -> Record {
    let mut record = event(number);
    record.number += 1; // 0 is no number
    record.observed_unix_ms = 1_700_000_000_000 + number * step_ms;
    if let Some(What::Inference(event)) = &mut record.what {
        let of = usize::try_from(number / 7).unwrap_or(0) % MODELS.len();
        MODELS[of].clone_into(&mut event.model);
    }
    record
}
