//! Models timed on a device of the fleet: their files go up, a signed order after them, and the
//! device's report comes back through the same API.

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use protocol::id::{ContentHash, DeviceId};
use protocol::manifest::{FileRef, SigningKey};
use protocol::measurement::{Measured, Order, Report, SignedDelegation, encode_inputs};
use protocol::tensor::Tensor;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::config::{Config, LAB_KEY};
use crate::errors::hinted;
use crate::output;

/// How often the report is asked for.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How models are to be timed.
pub(crate) struct Terms {
    /// Threads of each model.
    pub(crate) threads: u8,
    /// How long they run, all together.
    pub(crate) time_s: u32,
    /// How long the device is waited for.
    pub(crate) wait_s: u32,
}

/// This machine as a lab.
pub(crate) struct Lab {
    client: Client,
    key: SigningKey,
    delegation: SignedDelegation,
}

#[derive(Deserialize)]
struct Device {
    id: DeviceId,
    name: String,
    online: bool,
}

#[derive(Deserialize)]
struct Answer {
    state: String,
    report: Option<Report>,
}

impl Lab {
    /// With the cloud of the last login, and what an operator allows this machine.
    pub(crate) fn open(config: &Config) -> anyhow::Result<Self> {
        let client = Client::open(config)?;
        let absent = || {
            let hint = "an operator runs here, or for this machine's key: outrigger lab delegate";
            hinted("no operator lets this machine have models measured", hint)
        };
        let key = config.key(LAB_KEY)?.ok_or_else(absent)?;
        let delegation = config.delegation()?.ok_or_else(absent)?;
        Ok(Self { client, key, delegation })
    }

    /// A connected device, by its id or the only one of its name.
    pub(crate) fn device(&self, name: &str) -> anyhow::Result<DeviceId> {
        let devices = self.client.list("/v1/devices", "devices")?;
        let devices: Vec<Device> = serde_json::from_value(devices)?;
        let by_id = devices.iter().find(|device| device.id.as_str() == name);
        let named: Vec<_> = devices.iter().filter(|device| device.name == name).collect();
        let device = match (by_id, named.as_slice()) {
            (Some(device), _) | (None, &[device]) => device,
            (None, []) => {
                return Err(hinted(format!("there is no device {name}"), "outrigger device list"));
            }
            (None, several) => {
                let ids: Vec<_> = several.iter().map(|device| device.id.as_str()).collect();
                let what = format!("{} devices are called {name}", several.len());
                return Err(hinted(what, format!("say which by its id: {}", ids.join(", "))));
            }
        };
        match device.online {
            true => Ok(device.id.clone()),
            false => Err(hinted(format!("device {name} is not connected"), "start its agent")),
        }
    }

    /// Has the models timed, and waits for the report.
    pub(crate) fn measure(
        &self,
        device: &DeviceId,
        models: &[&Path],
        inputs: &[Tensor],
        terms: &Terms,
    ) -> anyhow::Result<Measured> {
        let spinner = ProgressBar::new_spinner();
        spinner.set_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
        spinner.enable_steady_tick(Duration::from_millis(100));
        spinner.set_message(format!("uploading {} models for {device}", models.len()));
        let upload = |path: &&Path| {
            let bytes = std::fs::read(path);
            self.upload(&bytes.with_context(|| format!("cannot read {}", path.display()))?)
        };
        let order = Order {
            id: hex::encode(link::entropy::<16>()),
            device: device.clone(),
            expires_at_s: output::now_s() + i64::from(terms.wait_s),
            threads: terms.threads,
            time_s: terms.time_s,
            models: models.iter().map(upload).collect::<Result<_, _>>()?,
            inputs: self.upload(&encode_inputs(inputs))?,
        };
        let signed = order.sign(&self.key, self.delegation.clone());
        let what = || format!("the cloud does not take the order for {device}");
        self.client
            .send::<Value>("POST", "/v1/measurements", &signed.to_json())
            .with_context(what)?;
        spinner.set_message(format!("waiting for {device}"));
        let report = self.wait(&order, terms);
        spinner.finish_and_clear();
        match report? {
            Report::Measured(measured) => Ok(measured),
            Report::Refused { why, hint } => {
                Err(hinted(format!("device {device} measured nothing: {why}"), hint))
            }
        }
    }

    fn upload(&self, bytes: &[u8]) -> anyhow::Result<FileRef> {
        let file = FileRef { sha256: ContentHash::of(bytes), size_bytes: bytes.len() as u64 };
        if !self.client.has_blob(file.sha256)? {
            self.client.put_blob(file.sha256, file.size_bytes, bytes)?;
        }
        Ok(file)
    }

    fn wait(&self, order: &Order, terms: &Terms) -> anyhow::Result<Report> {
        // It may begin at the last moment, and then takes its time.
        let patience = u64::from(terms.wait_s) + 2 * u64::from(terms.time_s) + 60;
        let end = Instant::now() + Duration::from_secs(patience);
        loop {
            let answer: Answer = self.client.get(&format!("/v1/measurements/{}", order.id))?;
            if let Some(report) = answer.report {
                return Ok(report);
            }
            if Instant::now() > end {
                let what = format!("device {} said nothing (order {})", order.device, answer.state);
                return Err(hinted(what, "is its agent of an older version?"));
            }
            std::thread::sleep(ASK_EVERY);
        }
    }
}
