//! What a roll-out is asked to do, as it is written on the command line.

use fleet::rollout::plan::{AgentVersion, Plan, Rate, Size, Stage, Window, agent_version};
use fleet::rollout::query::Query;
use protocol::id::GroupName;
use serde_json::{Value, json};

use crate::client::Client;
use crate::commands::model::assign::{Wanted, newest};
use crate::time::parse_span;

/// Arguments of `rollout plan` and `rollout start`.
#[derive(clap::Args)]
#[group(skip)] // it is flattened into others of that name
pub(crate) struct Args {
    /// The model, for example fashion or fashion@3; without a version the newest.
    #[arg(value_name = "NAME[@VERSION]")]
    model: Wanted,
    #[command(flatten)]
    target: Target,
    /// The stages: how many devices have the version at the end of each, as a number, a percentage or "all", and how
    /// long they are watched then.
    #[arg(long, value_name = "SIZE[:TIME],...", value_delimiter = ',', value_parser = parse_stage,
          default_value = "1%:1h,10%:1h,all:1h")]
    stages: Vec<Stage>,
    /// Labels by whose values each stage is drawn evenly.
    #[arg(long, value_name = "KEY,...", value_delimiter = ',')]
    strata: Vec<String>,
    /// A device has succeeded when the version has answered so many requests there.
    #[arg(long, value_name = "N", default_value = "20")]
    requests: u64,
    /// A device that has not succeeded so long after it was told has failed.
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = parse_span)]
    deadline: u32,
    /// The share of a stage that may refuse the version, or go back from it.
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = parse_percent)]
    failures: f64,
    /// The share of a stage that may be silent before the roll-out pauses.
    #[arg(long, value_name = "PERCENT", default_value = "20%", value_parser = parse_percent)]
    silent: f64,
    /// Devices that are told in a minute, to begin with; twice as many after each ten that serve.
    #[arg(long, value_name = "N", default_value = "60")]
    rate: f64,
    /// When devices may be told, by UTC.
    #[arg(long, value_name = "HH:MM-HH:MM", value_parser = parse_window)]
    window: Option<Window>,
    /// So many devices or more need the word of further people...
    #[arg(long, value_name = "N", default_value = "100")]
    approve_from: u32,
    /// ...so many of them together, you being one.
    #[arg(long, value_name = "N", default_value = "2")]
    approvals: u8,
    /// Leave devices out whose agent is older.
    #[arg(long, value_name = "VERSION", value_parser = parse_agent)]
    agent_min: Option<AgentVersion>,
    /// Go back where it is not done by then.
    #[arg(long, value_name = "TIME", default_value = "14d", value_parser = parse_span)]
    expires: u32,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// The devices that this query asks for, such as 'site=lyon AND gpu=none'.
    #[arg(long, value_name = "QUERY")]
    to: Option<Query>,
    /// The devices of a group.
    #[arg(long, value_name = "NAME")]
    group: Option<GroupName>,
    /// Every device of the fleet, in the end also those that enrol later.
    #[arg(long)]
    all: bool,
}

impl Args {
    /// The body of the call.
    pub(crate) fn body(&self, client: &Client, dry_run: bool) -> anyhow::Result<Value> {
        let Wanted { model, version } = &self.model;
        let version = version.map_or_else(|| newest(client, model), Ok)?;
        let target = match self.target.all {
            true => Some("*".parse()?),
            false => self.target.to.clone(),
        };
        let max_per_min = (100.0 * self.rate).max(Rate::default().max_per_min);
        let plan = Plan {
            model: Some(model.clone()),
            version: Some(version),
            target,
            everyone: self.target.all,
            stages: self.stages.clone(),
            strata: self.strata.clone(),
            requests_min: self.requests,
            deadline_s: self.deadline.into(),
            failures_max: self.failures,
            silent_max: self.silent,
            rate: Rate { first_per_min: self.rate, max_per_min, ..Rate::default() },
            window: self.window,
            approve_from: self.approve_from,
            approvals: self.approvals,
            agent_min: self.agent_min,
            expires_s: self.expires.into(),
            ..Plan::default()
        };
        Ok(json!({ "plan": plan, "group": self.target.group, "dry_run": dry_run }))
    }
}

fn parse_percent(text: &str) -> Result<f64, String> {
    let invalid = || format!("{text:?} is no percentage; write for example 5%");
    let number: f64 =
        text.strip_suffix('%').ok_or_else(invalid)?.trim().parse().map_err(|_| invalid())?;
    if (0.0..=100.0).contains(&number) { Ok(number / 100.0) } else { Err(invalid()) }
}

fn parse_stage(text: &str) -> Result<Stage, String> {
    let (size, soak) = text.split_once(':').unwrap_or((text, ""));
    let size = match size {
        "all" => Size::Share(1.0),
        share if share.ends_with('%') => Size::Share(parse_percent(share)?),
        count => {
            let invalid = |_| format!("{count:?} is no size of a stage; write 5, 10% or all");
            Size::Count(count.parse().map_err(invalid)?)
        }
    };
    let soak_s = match soak {
        "" => Plan::default().stages[0].soak_s,
        soak => parse_span(soak)?.into(),
    };
    Ok(Stage { size, soak_s })
}

fn parse_window(text: &str) -> Result<Window, String> {
    let invalid = || format!("{text:?} is no window; write for example 22:00-04:00");
    let minutes = |text: &str| {
        let (hour, minute) = text.split_once(':')?;
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour < 24 && minute < 60).then_some(hour * 60 + minute)
    };
    let (from, to) = text.split_once('-').ok_or_else(invalid)?;
    let (from_min, to_min) = minutes(from).zip(minutes(to)).ok_or_else(invalid)?;
    Ok(Window { from_min, to_min })
}

fn parse_agent(text: &str) -> Result<AgentVersion, String> {
    agent_version(text).ok_or_else(|| format!("{text:?} is no version; write for example 0.2.0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_windows_and_percentages() {
        let stage = |text: &str| parse_stage(text).ok().map(|stage| (stage.size, stage.soak_s));
        assert_eq!(stage("5"), Some((Size::Count(5), 3600)));
        assert_eq!(stage("10%:30m"), Some((Size::Share(0.1), 1800)));
        assert_eq!(stage("all:1s"), Some((Size::Share(1.0), 1)));
        for bad in ["", "x", "101%", "5:x", "-1", ":1h"] {
            assert_eq!(stage(bad), None, "{bad}");
        }
        let night = parse_window("22:00-04:30").unwrap();
        assert_eq!((night.from_min, night.to_min), (1320, 270));
        for bad in ["", "22-4", "25:00-04:00", "22:00"] {
            assert!(parse_window(bad).is_err(), "{bad}");
        }
    }
}
