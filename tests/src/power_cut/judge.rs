//! What a copy is worth: it is mounted, and an agent is started on it, without a network.

use super::disk::Room;
use crate::fashion::{Images, ask};
use crate::world::{Agent, AgentOptions, World, model_status};
use anyhow::{Context, ensure};
use link::pki::{DeviceCertificate, DeviceKey, chain_from_pem};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What had been said when the power went.
#[derive(Debug, Clone)]
pub(super) struct Promise {
    /// Whether the device is enrolled; `None` while that is being changed.
    pub(super) enrolled: Option<bool>,
    /// The version that was said to be active; 0 for none.
    pub(super) version: u64,
    /// Until when the certificate was said to be valid, in Unix seconds.
    pub(super) not_after_s: i64,
    /// The token with which an interrupted enrolment is repeated.
    pub(super) token: PathBuf,
}

/// One point.
pub(super) struct Point {
    pub(super) image: PathBuf,
    pub(super) promise: Promise,
}

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) enrolled: bool,
    pub(super) started: bool,
    pub(super) acknowledged: u64,
    pub(super) served: u64,
    /// Files that an interrupted write left, and that the next start took away.
    pub(super) swept: usize,
    /// From the start of the agent to its first answer.
    pub(super) recovery: Option<Duration>,
    pub(super) failures: Vec<String>,
}

/// Judges a point. An error is a failure of the device, not of this program.
pub(super) fn judge(room: &Room, world: &World, stage: &str, point: &Point) -> Verdict {
    let mut verdict = Verdict { acknowledged: point.promise.version, ..Verdict::default() };
    if let Err(error) = judge_into(room, world, point, &mut verdict) {
        let name = point.image.file_stem().unwrap_or_default().to_string_lossy();
        verdict.failures.push(format!("{stage}, {name}: {error:#}"));
    }
    verdict
}

fn judge_into(
    room: &Room,
    world: &World,
    point: &Point,
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    let mount = room.mount_after_cut(&point.image)?;
    let state_dir = mount.folder().join("device");
    verdict.enrolled = state_dir.join("enrolment.json").exists();
    if let Some(expected) = point.promise.enrolled {
        ensure!(verdict.enrolled == expected, "enrolled is not {expected}");
    }
    if verdict.enrolled {
        identity(&state_dir, point.promise.not_after_s)?;
    } else {
        enrol_again(world, &state_dir, &point.promise.token)?;
    }
    let left_before = leftovers(&state_dir)?;
    serve_offline(&state_dir, verdict)?;
    let left = leftovers(&state_dir)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    verdict.swept = left_before.len();
    ensure!(
        verdict.served >= verdict.acknowledged,
        "serves {}, but {} was active",
        verdict.served,
        verdict.acknowledged
    );
    Ok(())
}

/// The identity is whole: key, certificate and CA, and they fit.
fn identity(state_dir: &Path, not_after_s: i64) -> anyhow::Result<()> {
    let read = |name: &str| fs::read(state_dir.join(name)).context(name.to_owned());
    let key = DeviceKey::from_pem(&String::from_utf8(read("device.key")?)?)?;
    let chain = chain_from_pem(&read("device.pem")?)?;
    let certificate = DeviceCertificate::parse(chain.first().context("an empty chain")?)?;
    ensure!(certificate.key == key.hash(), "the certificate is for another key");
    ensure!(certificate.not_after_s >= not_after_s, "the renewed certificate is lost");
    chain_from_pem(&read("ca.pem")?)?.first().context("no CA")?;
    Ok(())
}

/// With the token of the interrupted enrolment where the key is here that used it.
fn enrol_again(world: &World, state_dir: &Path, token: &Path) -> anyhow::Result<()> {
    let fresh;
    let token = if state_dir.join("device.key").exists() && token.exists() {
        token
    } else {
        fresh = world.token()?;
        &fresh
    };
    Agent::enrol(state_dir, &world.cloud.address(), token).context("it cannot enrol again")
}

/// From now on nobody is there where its cloud was.
pub(super) fn go_offline(state_dir: &Path) -> anyhow::Result<()> {
    let path = state_dir.join("enrolment.json");
    let mut enrolment: Value = serde_json::from_slice(&fs::read(&path)?)?;
    enrolment["cloud"] = json!("127.0.0.1:9");
    Ok(fs::write(&path, serde_json::to_vec(&enrolment)?)?)
}

fn serve_offline(state_dir: &Path, verdict: &mut Verdict) -> anyhow::Result<()> {
    go_offline(state_dir)?;
    let agent = Agent::start(state_dir, &AgentOptions::default())?;
    verdict.started = true;
    let status = agent.status()?;
    if let Some(version) = model_status(&status, "fashion")["active_version"].as_u64() {
        let images = Images::test()?;
        let parameters = json!({ "placement": "edge", "timeout": 5_000_000 });
        let response = ask(&mut agent.client()?, images.pixels(0), &parameters)?;
        ensure!(response.status == 200, "{version} is active and answers {}", response.status);
        verdict.served = version;
    }
    agent.stop()?;
    Ok(())
}

/// What only an interrupted write leaves.
pub(super) fn leftovers(state_dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for folder in ["", "bundles", "incoming"] {
        let Ok(entries) = fs::read_dir(state_dir.join(folder)) else { continue };
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if [".tmp", ".staging"].iter().any(|end| name.ends_with(end)) {
                found.push(name);
            }
        }
    }
    let bundles = fs::read_dir(state_dir.join("bundles")).map_or(0, Iterator::count);
    ensure!(bundles <= 3, "{bundles} bundles: more than active, previous and next");
    Ok(found)
}
