//! `outrigger rollout watch`: how a roll-out stands, until it is over.
//!
//! On a terminal the same lines are written over and over. Elsewhere, and where `TERM` is `dumb`, a line is written for
//! each thing that happened, and nothing is taken back. With `--json` there is one object a line for each change.

use serde_json::Value;
use std::io::{IsTerminal, Write};
use std::thread::sleep;
use std::time::Duration;

use super::history::when;
use super::one::Args;
use super::view::Rollout;
use crate::client::Client;
use crate::config::Config;
use crate::errors::hinted;
use crate::output;

/// How often the cloud is asked.
const EVERY: Duration = Duration::from_secs(1);
/// Times in a row that the cloud may not answer.
const PATIENCE: u32 = 60;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let path = format!("/v1/rollouts/{}", args.rollout);
    let mut shown = Shown::new(args.json);
    let mut missed = 0;
    loop {
        let answer: Value = match client.get(&path) {
            Ok(answer) => answer,
            // A roll-out goes on while its cloud is restarted; so does who watches it.
            Err(error) if missed < PATIENCE && shown.seen > 0 => {
                missed += 1;
                eprintln!("the cloud does not answer ({error:#}); trying again");
                sleep(EVERY);
                continue;
            }
            Err(error) => return Err(error),
        };
        missed = 0;
        let rollout: Rollout = serde_json::from_value(answer.clone())?;
        shown.show(&rollout, &answer);
        if rollout.is_over() {
            return end(&rollout);
        }
        sleep(EVERY);
    }
}

/// Scripts see by the exit code whether the version has reached everybody.
fn end(rollout: &Rollout) -> anyhow::Result<()> {
    if rollout.is_done() {
        return Ok(());
    }
    let hint = format!("outrigger rollout history {}", rollout.id);
    Err(hinted(format!("{} is {}", rollout.id, rollout.phase), hint))
}

enum Style {
    Over,
    Lines,
    Json,
}

struct Shown {
    style: Style,
    /// Entries of the history that were shown.
    seen: usize,
    /// Lines on the screen.
    height: usize,
    last: Value,
}

impl Shown {
    fn new(json: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let style = match json {
            true => Style::Json,
            false if std::io::stdout().is_terminal() && !dumb => Style::Over,
            false => Style::Lines,
        };
        Self { style, seen: 0, height: 0, last: Value::Null }
    }

    fn show(&mut self, rollout: &Rollout, answer: &Value) {
        match self.style {
            Style::Over => self.over(rollout),
            Style::Lines => self.lines(rollout),
            Style::Json => self.json(answer),
        }
        self.seen = rollout.history.len();
    }

    /// Writes over what was there.
    fn over(&mut self, rollout: &Rollout) {
        let lines = rollout.lines();
        let mut text = match self.height {
            0 => String::new(),
            height => format!("\x1b[{height}A"),
        };
        for line in lines
            .iter()
            .map(String::as_str)
            .chain(std::iter::repeat_n("", self.height.saturating_sub(lines.len())))
        {
            text += &format!("\x1b[2K{line}\n");
        }
        self.height = self.height.max(lines.len());
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    fn lines(&self, rollout: &Rollout) {
        for entry in rollout.history.iter().skip(self.seen) {
            output::line(&format!("{}  {}", when(entry.at_s), entry.what));
        }
        if rollout.is_over() {
            rollout.lines().iter().for_each(|line| output::line(line));
        }
    }

    fn json(&mut self, answer: &Value) {
        let mut same = answer.clone();
        same["in_phase_s"] = Value::Null; // time that passes is no news
        if same != self.last {
            output::line(&answer.to_string());
            self.last = same;
        }
    }
}
