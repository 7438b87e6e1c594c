//! `outrigger device logs`.

use anyhow::bail;
use protocol::limits::ANSWER_LINES_MAX;
use protocol::question::What;

use super::ask::{Answer, How, Whom, ask};
use crate::client::Client;
use crate::config::Config;
use crate::output;
use crate::time::parse_span;

/// Arguments of `device logs`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    whom: Whom,
    /// The newest lines, at most so many.
    #[arg(long, value_name = "N", default_value = "100",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(ANSWER_LINES_MAX)))]
    lines: u32,
    /// Only of the last time, such as 10m; all that the agent keeps when absent.
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    since: Option<u32>,
    #[command(flatten)]
    how: How,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let what = What::Logs { lines: args.lines, since_s: args.since.unwrap_or(0).into() };
    let answers = ask(&client, (&args.whom, &args.how), what)?;
    if args.how.json {
        output::json(&answers.clone().into());
    }
    let answers: Vec<Answer> =
        answers.into_iter().map(serde_json::from_value).collect::<Result<_, _>>()?;
    if !args.how.json {
        answers.iter().for_each(|answer| show(answer, answers.len() > 1));
    }
    let absent: Vec<String> = answers.iter().filter_map(Answer::absence).collect();
    if !absent.is_empty() {
        bail!("{}", absent.join("\n"));
    }
    Ok(())
}

fn show(answer: &Answer, is_one_of_many: bool) {
    for line in answer.text.lines() {
        match is_one_of_many {
            true => output::line(&format!("{}  {line}", answer.device)),
            false => output::line(line),
        }
    }
    if answer.left_out > 0 {
        let Answer { device, left_out, .. } = answer;
        eprintln!("{device}: {left_out} earlier lines found no place; ask for fewer with --lines");
    }
}
