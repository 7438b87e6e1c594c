//! `outrigger device show`.

use protocol::id::DeviceId;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of `device show`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The device.
    #[arg(value_name = "ID")]
    device: DeviceId,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Device {
    id: String,
    name: String,
    online: bool,
    last_seen_s: Option<i64>,
    agent_version: String,
    labels: BTreeMap<String, String>,
    known_as: BTreeMap<String, String>,
    inventory: Option<Inventory>,
    desired: Vec<Desired>,
    reported: Vec<Reported>,
}

#[derive(Deserialize)]
struct Inventory {
    processor: String,
    cores: u32,
    memory_bytes: u64,
    cpu_features: Vec<String>,
    gpu: String,
    providers: Vec<String>,
    runtime: String,
}

#[derive(Deserialize)]
struct Desired {
    model: String,
    version: u64,
    rollout: Option<String>,
    difference: String,
}

#[derive(Deserialize)]
struct Reported {
    model: String,
    active_version: Option<u64>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let answer: Value = client.get(&format!("/v1/devices/{}", args.device))?;
    if args.json {
        output::json(&answer);
        return Ok(());
    }
    let device: Device = serde_json::from_value(answer)?;
    device.lines(output::now_s()).iter().for_each(|line| output::line(line));
    let header = ["model", "should run", "because of", "runs", "why not"];
    output::table(&header, device.models(), "It should run no model: outrigger model assign");
    Ok(())
}

fn pairs(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    or_dash(&pairs)
}

fn or_dash(words: &[String]) -> String {
    if words.is_empty() { "-".to_owned() } else { words.join(" ") }
}

impl Device {
    fn lines(&self, now_s: i64) -> Vec<String> {
        let seen = match self.last_seen_s {
            _ if self.online => "connected".to_owned(),
            Some(then_s) => format!("gone, seen {}", output::ago(then_s, now_s)),
            None => "never connected".to_owned(),
        };
        let mut lines = vec![
            format!("{} ({}): {seen}, agent {}", self.id, self.name, self.agent_version),
            format!("labels:    {}", pairs(&self.labels)),
            format!("asked by:  {}", pairs(&self.known_as)),
        ];
        if let Some(own) = &self.inventory {
            let memory = output::size(own.memory_bytes);
            lines.push(format!("processor: {} x {}, {memory}", own.processor, own.cores));
            lines.push(format!("features:  {}", or_dash(&own.cpu_features)));
            let providers = or_dash(&own.providers);
            lines.push(format!(
                "runs on:   {}, gpu {}, providers {providers}",
                own.runtime, own.gpu
            ));
        }
        lines
    }

    /// What it should run beside what it runs, and why these differ.
    fn models(&self) -> Vec<Vec<String>> {
        let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let row = |desired: &Desired| {
            let own = self.reported.iter().find(|own| own.model == desired.model);
            let runs = own.and_then(|own| own.active_version).map(|version| version.to_string());
            let because = desired.rollout.as_ref().map(|id| format!("roll-out {id}"));
            vec![
                desired.model.clone(),
                desired.version.to_string(),
                because.unwrap_or_else(|| "an assignment".to_owned()),
                dash(&runs.unwrap_or_default()),
                dash(&desired.difference),
            ]
        };
        self.desired.iter().map(row).collect()
    }
}
