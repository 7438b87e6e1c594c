//! What a device's flash has to take in a day: the agent's state folder lies on an ext4 file system of its own, and its
//! block device counts the sectors that were written, journal and metadata included.
//!
//! A day does not pass here. Everything that telemetry does in an hour is done in a minute: sums, segments and uploads by
//! `[telemetry]`, sixty requests a second instead of one, and as many events. A group waits one second where by default it
//! waits thirty, which here would be half a second: so there are, if anything, fewer groups than there would be. What the file
//! system gathers by itself, over five seconds, is five minutes of a device's here; but almost everything is synced.

use super::wait_for;
use crate::fashion::{Images, ask};
use crate::small_disk::Mounted;
use crate::world::{Agent, AgentOptions, World};
use anyhow::{Context, ensure};
use serde_json::json;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// So many times as fast as a device is.
const FASTER: u32 = 60;
/// Its hour in a minute.
const CONFIG: &str =
    "[telemetry]\nsummary_s = 60\nsegment_s = 60\nevents_per_hour = 720\ncommit_s = 1\n";
/// What a device may write in a day at one request a second.
const BYTES_PER_DAY_MAX: f64 = 50e6;
const SECTOR_BYTES: f64 = 512.0;

/// What was written.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// Of the device's time.
    pub hours: f64,
    /// Requests that were answered.
    pub requests: u64,
    /// By the block device's counter.
    pub bytes: f64,
}

impl Written {
    /// In a day at this rate.
    pub fn bytes_per_day(&self) -> f64 {
        self.bytes / self.hours * 24.0
    }

    /// Whether that is within the budget.
    ///
    /// # Errors
    /// It is not, or there was hardly anything to write.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.bytes > 0.0 && self.bytes_per_day() <= BYTES_PER_DAY_MAX, "{self}");
        Ok(())
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hours, requests, bytes } = self;
        let (mb, a_day) = (bytes / 1e6, self.bytes_per_day() / 1e6);
        write!(
            f,
            "the disk's counter: {mb:.2} MB in {hours:.1} hours of a device at one request a second ({requests} requests, \
             {FASTER} times as fast), that is {a_day:.1} MB a day"
        )
    }
}

/// Runs a device for so long, as fast as that. `None`, with the reason printed, where no disk can be made.
///
/// # Errors
/// A program that does not start, or answers no more.
pub fn wear(time: Duration) -> anyhow::Result<Option<Written>> {
    let mut world = World::start()?;
    world.ship_fashion()?;
    world.operator.run(&["telemetry", "key"])?;
    let state_dir = world.folder().join("device");
    let Some((disk, counter)) = disk(world.folder(), &state_dir)? else { return Ok(None) };
    Agent::enrol(&state_dir, &world.cloud.address(), &world.token()?)?;
    let agent = Agent::start(&state_dir, &AgentOptions { config: CONFIG.into() })?;
    agent.wait_active("fashion", 1)?;
    let images = Images::test()?;
    // The model is installed and trusted, the sums of the first minute are there: from now on it is a day like any other.
    call(&agent, &images, Duration::from_secs(30))?;
    wait_for(&world, "the first records", |all| !all.is_empty())?;
    let before = counter.bytes()?;
    let requests = call(&agent, &images, time)?;
    let bytes = counter.bytes()? - before;
    agent.stop()?;
    world.cloud.stop()?;
    drop(disk);
    let hours = time.as_secs_f64() * f64::from(FASTER) / 3600.0;
    Ok(Some(Written { hours, requests, bytes }))
}

/// Asks at sixty requests a second; how many were answered.
fn call(agent: &Agent, images: &Images, time: Duration) -> anyhow::Result<u64> {
    let mut client = agent.client()?;
    let begun = Instant::now();
    let mut answered = 0;
    while begun.elapsed() < time {
        let pixels = images.pixels(usize::try_from(answered)? % images.len());
        let answer = ask(&mut client, pixels, &json!({}))?;
        ensure!(answer.status == 200, "{}", answer.status);
        answered += 1;
        let due = begun + Duration::from_secs_f64(answered as f64 / f64::from(FASTER));
        std::thread::sleep(due.saturating_duration_since(Instant::now())); // the rate is what is measured at
    }
    Ok(answered)
}

/// What a block device has written.
struct Counter(String);

impl Counter {
    /// All that waits is written first.
    fn bytes(&self) -> anyhow::Result<f64> {
        run(&mut Command::new("sync"))?;
        let text = std::fs::read_to_string(&self.0)?;
        // Documentation/block/stat.rst: the seventh is sectors written.
        let sectors: f64 = text.split_whitespace().nth(6).context("no such counter")?.parse()?;
        Ok(sectors * SECTOR_BYTES)
    }
}

/// A disk of its own, as a device has one, mounted at `folder`.
fn disk(beside: &Path, folder: &Path) -> anyhow::Result<Option<(Mounted, Counter)>> {
    let image = beside.join("flash.img");
    File::create(&image)?.set_len(256 << 20)?;
    run(Command::new("mkfs.ext4")
        .args(["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
        .arg(&image))?;
    std::fs::create_dir_all(folder)?;
    let mounted = run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(folder));
    if let Err(error) = mounted {
        println!(
            "SKIPPED: the writes of a disk are counted on a loop device, which only root can mount: {error}"
        );
        return Ok(None);
    }
    let mounted = Mounted::at(folder);
    std::fs::remove_dir(folder.join("lost+found"))?;
    let device = run(Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(folder))?;
    let name = device.trim().strip_prefix("/dev/").context("no device")?.to_owned();
    Ok(Some((mounted, Counter(format!("/sys/block/{name}/stat")))))
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
