//! `outrigger telemetry query`: SQL over what was imported.

use analytics::query::Query;
use std::io::BufWriter;
use std::path::PathBuf;

use crate::output;

/// Rows that are shown as a table.
const ROWS_MAX: usize = 10_000;

/// Arguments of `telemetry query`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A question, such as "SELECT day, model, count(*) FROM inference GROUP BY day, model".
    ///
    /// Tables: inference, aggregates, counters, dropped, health, resources, rollouts, samples; `DESCRIBE inference` shows
    /// the columns. `histogram_quantile(total_us, 0.99)` reads the histograms of aggregates.
    #[arg(value_name = "SQL")]
    sql: String,
    /// The dataset's folder.
    #[arg(long, value_name = "FOLDER")]
    dataset: PathBuf,
    /// Print a JSON object for each row; without a limit.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let asked = async {
        let query = Query::open(&args.dataset).await?;
        if args.json {
            return query.write_json(&args.sql, BufWriter::new(std::io::stdout())).await;
        }
        let answer = query.ask(&args.sql, ROWS_MAX).await?;
        let columns: Vec<&str> = answer.columns.iter().map(String::as_str).collect();
        output::table(&columns, answer.rows, "no rows");
        Ok(())
    };
    Ok(super::runtime()?.block_on(asked)?)
}
