//! `outrigger agent status`.

use protocol::id::DeviceId;
use serde::Deserialize;
use serde_json::json;

use super::{Build, Releases};
use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of `agent status`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Device {
    id: DeviceId,
    name: String,
    online: bool,
    agent_version: String,
    agent: Agent,
}

#[derive(Deserialize)]
struct Agent {
    /// What it should run.
    desired: Option<String>,
    target: String,
    installed: bool,
    /// What is to take over, how far that is, and what is wrong.
    next: String,
    phase: String,
    reason: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let devices = client.list("/v1/devices", "devices")?;
    if args.json {
        let releases: serde_json::Value = client.get("/v1/agent/releases")?;
        output::json(&json!({ "releases": releases["releases"], "devices": devices }));
        return Ok(());
    }
    let Releases { releases, assignments } = Releases::get(&client)?;
    let is_assigned = |build: &Build| {
        let own = assignments.iter().filter(|own| own.version == build.version);
        let whom = own.map(|own| own.device.as_ref().map_or("all", DeviceId::as_str));
        whom.collect::<Vec<_>>().join(", ")
    };
    let row = |build: &Build| {
        let [version, size] = [build.version.to_string(), output::size(build.size_bytes)];
        vec![version, build.target.clone(), size, or_dash(&is_assigned(build))]
    };
    let rows = releases.iter().map(row).collect();
    let none = "There are no releases of the agent yet: outrigger agent push FILE";
    output::table(&["version", "target", "size", "assigned to"], rows, none);
    output::line("");
    let devices: Vec<Device> = serde_json::from_value(devices)?;
    let rows = devices.iter().map(Device::row).collect();
    let header = ["device", "name", "state", "runs", "from", "should run", "how far"];
    output::table(&header, rows, "There are no devices yet: outrigger device token");
    Ok(())
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

impl Device {
    fn row(&self) -> Vec<String> {
        let agent = &self.agent;
        vec![
            self.id.to_string(),
            self.name.clone(),
            if self.online { "connected" } else { "gone" }.to_owned(),
            self.agent_version.clone(),
            agent.from().to_owned(),
            or_dash(agent.desired.as_deref().unwrap_or_default()),
            agent.words(),
        ]
    }
}

impl Agent {
    fn from(&self) -> &'static str {
        match (&*self.target, self.installed) {
            ("", _) => "-", // an agent from before this was told
            (_, true) => "installed",
            (_, false) => "cloud",
        }
    }

    fn words(&self) -> String {
        let how = if self.phase == "settled" { "" } else { &*self.phase };
        let far: Vec<&str> =
            [&*self.next, how].into_iter().filter(|word| !word.is_empty()).collect();
        match (far.join(" "), &*self.reason) {
            (far, "") => or_dash(&far),
            (far, reason) if far.is_empty() => reason.to_owned(),
            (far, reason) => format!("{far}: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_it_is_in_words() {
        let check = |next: &str, phase: &str, reason: &str| {
            let [next, phase, reason] = [next, phase, reason].map(str::to_owned);
            let (desired, target) = (None, "x86_64-unknown-linux-gnu".to_owned());
            Agent { desired, target, installed: true, next, phase, reason }.words()
        };
        assert_eq!(check("", "settled", ""), "-");
        assert_eq!(check("0.2.0", "fetching", ""), "0.2.0 fetching");
        assert_eq!(check("0.2.0", "refused", "it crashed"), "0.2.0 refused: it crashed");
        assert_eq!(check("", "settled", "0.2.0 gave way"), "0.2.0 gave way");
    }
}
