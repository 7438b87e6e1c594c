//! What `device check` and `device logs` share: devices are asked, and waited for until each has answered or its time is
//! over.

use anyhow::bail;
use fleet::rollout::query::Query;
use protocol::id::{DeviceId, GroupName, QuestionId};
use protocol::question::What;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

use super::list::by_query;
use crate::client::Client;
use crate::time::parse_span;

/// How often an answer is asked for.
const EVERY: Duration = Duration::from_millis(300);

/// How long a device may take, and how what it says is printed.
#[derive(clap::Args)]
pub(super) struct How {
    /// How long to wait for the answer; a device that is away is asked when it is back.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_span)]
    wait: u32,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Which devices.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Whom {
    /// The device.
    #[arg(value_name = "ID")]
    device: Option<DeviceId>,
    /// The devices that this query asks for, such as 'site=lyon AND gpu=none'.
    #[arg(long, value_name = "QUERY")]
    to: Option<Query>,
    /// The devices of a group.
    #[arg(long, value_name = "NAME")]
    group: Option<GroupName>,
}

impl Whom {
    fn devices(&self, client: &Client) -> anyhow::Result<Vec<DeviceId>> {
        if let Some(device) = &self.device {
            return Ok(vec![device.clone()]);
        }
        let query = match (&self.to, &self.group) {
            (Some(query), _) => query.to_string(),
            (None, group) => query_of(client, group.as_ref())?,
        };
        #[derive(Deserialize)]
        struct Device {
            id: DeviceId,
            denied: bool,
        }
        let devices: Vec<Device> = serde_json::from_value(by_query(client, Some(&query))?)?;
        let asked = devices.into_iter().filter(|device| !device.denied);
        let asked: Vec<_> = asked.map(|device| device.id).collect();
        if asked.is_empty() {
            bail!("no device is asked for by `{query}`");
        }
        Ok(asked)
    }
}

fn query_of(client: &Client, group: Option<&GroupName>) -> anyhow::Result<String> {
    let groups = client.list("/v1/groups", "groups")?;
    let named = |own: &&Value| group.is_some_and(|group| own["name"] == group.as_str());
    let query = groups.as_array().into_iter().flatten().find(named);
    match query.and_then(|own| own["query"].as_str()) {
        Some(query) => Ok(query.to_owned()),
        None => bail!("there is no group {}", group.map_or("", GroupName::as_str)),
    }
}

/// What became of a question.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    pub(super) device: DeviceId,
    /// `answered`, `refused` or `late`.
    pub(super) state: String,
    #[serde(default)]
    pub(super) text: String,
    #[serde(default)]
    pub(super) left_out: u64,
    #[serde(default)]
    pub(super) why: String,
}

impl Answer {
    /// Why there is none, in a line; nothing where there is one.
    pub(super) fn absence(&self) -> Option<String> {
        let Self { device, state, why, .. } = self;
        match state.as_str() {
            "answered" => None,
            "refused" => Some(format!("{device}: {why}")),
            _ => Some(format!(
                "{device} has not answered in time: is it connected, and its agent of this version? See: outrigger device show {device}"
            )),
        }
    }
}

/// Asks, and waits until every question has its end; what became of each, as the API says it.
pub(super) fn ask(
    client: &Client,
    (whom, how): (&Whom, &How),
    what: What,
) -> anyhow::Result<Vec<Value>> {
    let mut asked: Vec<QuestionId> = Vec::new();
    for device in whom.devices(client)? {
        let body = json!({ "device": device, "question": what, "wait_s": how.wait });
        #[derive(Deserialize)]
        struct Asked {
            id: QuestionId,
            online: bool,
        }
        let Asked { id, online } =
            client.send("POST", "/v1/questions", body.to_string().as_bytes())?;
        if !online {
            eprintln!("{device} is away: waiting up to {} s", how.wait);
        }
        asked.push(id);
    }
    asked.iter().map(|id| answered(client, id)).collect()
}

fn answered(client: &Client, id: &QuestionId) -> anyhow::Result<Value> {
    loop {
        let question: Value = client.get(&format!("/v1/questions/{id}"))?;
        if question["state"] != "waiting" {
            return Ok(question);
        }
        std::thread::sleep(EVERY);
    }
}
