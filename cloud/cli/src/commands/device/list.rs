//! `outrigger device list`.

use fleet::rollout::query::Query;
use serde::Deserialize;
use serde_json::Value;

use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of `device list`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the names of those that are denied, one a line: what a restore from a backup is told by --deny.
    #[arg(long, conflicts_with = "json")]
    denied: bool,
    /// Only those that this query asks for, such as 'site=lyon AND gpu=none'.
    #[arg(long, value_name = "QUERY")]
    to: Option<Query>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Device {
    id: String,
    name: String,
    online: bool,
    /// What carries the connection, and why that; absent without one.
    #[serde(default)]
    carrier: Option<String>,
    #[serde(default)]
    carrier_reason: String,
    last_seen_s: Option<i64>,
    agent_version: String,
    denied: bool,
    /// Which fleet CA has signed the certificate that it showed last.
    #[serde(default)]
    ca: String,
    desired: Vec<Desired>,
    reported: Vec<Reported>,
}

#[derive(Deserialize)]
struct Desired {
    model: String,
    version: u64,
}

#[derive(Deserialize)]
struct Reported {
    model: String,
    active_version: Option<u64>,
    target_version: Option<u64>,
    phase: String,
    reason: String,
    /// How often too many accepted answers differed from the cloud's.
    #[serde(default)]
    alarms: u32,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let query = args.to.as_ref().map(ToString::to_string);
    let devices = by_query(&client, query.as_deref())?;
    if args.json {
        output::json(&devices);
        return Ok(());
    }
    let devices: Vec<Device> = serde_json::from_value(devices)?;
    if args.denied {
        devices.iter().filter(|device| device.denied).for_each(|device| output::line(&device.id));
        return Ok(());
    }
    let now_s = output::now_s();
    let rows = devices.iter().map(|device| device.row(now_s)).collect();
    let header = ["device", "name", "state", "agent", "should run", "runs"];
    output::table(&header, rows, "There are no devices yet: outrigger device token");
    Ok(())
}

/// The devices that a query asks for, all without one, as the API says it.
pub(super) fn by_query(client: &Client, query: Option<&str>) -> anyhow::Result<Value> {
    let path = match query {
        Some(query) => format!("/v1/devices?query={}", escaped(query)),
        None => "/v1/devices".to_owned(),
    };
    client.list(&path, "devices")
}

/// A text as a part of a URL's query.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}

impl Device {
    fn row(&self, now_s: i64) -> Vec<String> {
        let desired: Vec<_> =
            self.desired.iter().map(|d| format!("{}@{}", d.model, d.version)).collect();
        let reported: Vec<_> = self.reported.iter().filter_map(Reported::words).collect();
        let or_dash = |list: Vec<String>| match list.is_empty() {
            true => "-".to_owned(),
            false => list.join("\n"),
        };
        vec![
            self.id.clone(),
            self.name.clone(),
            self.state(now_s),
            self.agent_version.clone(),
            or_dash(desired),
            or_dash(reported),
        ]
    }

    fn state(&self, now_s: i64) -> String {
        match &*self.ca {
            _ if self.denied => "denied".to_owned(),
            "previous" => format!("{}, has the CA from before", self.seen(now_s)),
            _ => self.seen(now_s),
        }
    }

    fn seen(&self, now_s: i64) -> String {
        match self.last_seen_s {
            _ if self.online => match (self.carrier.as_deref(), &*self.carrier_reason) {
                (Some("tcp"), "udp_silent") => "connected over TCP (UDP is silent)".to_owned(),
                (Some("tcp"), _) => "connected over TCP".to_owned(),
                _ => "connected".to_owned(),
            },
            Some(then_s) => format!("gone, seen {}", output::ago(then_s, now_s)),
            None => "never connected".to_owned(),
        }
    }
}

impl Reported {
    fn words(&self) -> Option<String> {
        let alarms = match self.alarms {
            0 => String::new(),
            1 => " (drift: 1 alarm)".to_owned(),
            many => format!(" (drift: {many} alarms)"),
        };
        let running = |version| format!("{}@{version}{alarms}", self.model);
        let active = self.active_version.map(running);
        let target = self.target_version.filter(|target| Some(*target) != self.active_version);
        let target = target.map(|version| {
            let reason = if self.reason.is_empty() { "" } else { ": " };
            format!("{}@{version} {}{reason}{}", self.model, self.phase, self.reason)
        });
        match (active, target) {
            (Some(active), Some(target)) => Some(format!("{active}, {target}")),
            (active, target) => active.or(target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_travels_in_a_url() {
        assert_eq!(escaped("site=lyon AND a!=1"), "site%3Dlyon%20AND%20a%21%3D1");
    }

    #[test]
    fn what_a_device_runs_in_words() {
        let check = |active_version, target_version, phase: &str, reason: &str| {
            let (phase, reason) = (phase.to_owned(), reason.to_owned());
            let model = "m".to_owned();
            Reported { model, active_version, target_version, phase, reason, alarms: 0 }.words()
        };
        assert_eq!(check(None, None, "", ""), None);
        assert_eq!(check(Some(1), None, "active", "").unwrap(), "m@1");
        assert_eq!(check(Some(1), Some(1), "active", "").unwrap(), "m@1");
        assert_eq!(check(Some(1), Some(2), "fetching", "").unwrap(), "m@1, m@2 fetching");
        assert_eq!(check(None, Some(2), "refused", "forged").unwrap(), "m@2 refused: forged");
    }
}
