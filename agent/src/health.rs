//! The device checked by itself: what works, what does not, and what a person can do about it.
//!
//! Every check is one [`Check`] of a [`Report`]; a folder's module per group looks at the world and
//! leaves the judgement to small pure functions. Nothing here changes anything, and every check
//! that could wait for something is bounded by [`bounded`], so that the whole ends on a device of
//! which nothing works.

mod device;
mod identity;
mod local;
mod models;
mod network;
mod permissions;
mod report;
mod runtime;

pub(crate) use report::{Check, Finding, Group, Outcome, Report};

use crate::clock::Clock;
use crate::config::Config;
use crate::identity::{Enrolment, IdentityFiles};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// A check on files that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the checks look at.
pub(crate) struct Subject {
    pub(crate) state_dir: PathBuf,
    pub(crate) config: Config,
    /// Why the configuration is not the file's.
    pub(crate) config_error: Option<String>,
    files: IdentityFiles,
    enrolment: Option<Enrolment>,
    enrolment_error: Option<String>,
    clock: Clock,
}

impl Subject {
    /// Reads what several checks need. What cannot be read is a finding, not an error.
    pub(crate) fn read(state_dir: &Path, config_file: &Path) -> Self {
        let (config, config_error) = match Config::read(config_file) {
            Ok(config) => (config, None),
            Err(error) => (Config::default(), Some(protocol::problem::chain(&error))),
        };
        let files = IdentityFiles::new(state_dir);
        let (enrolment, enrolment_error) = match files.enrolment() {
            Ok(enrolment) => (enrolment, None),
            Err(error) => (None, Some(protocol::problem::chain(&error))),
        };
        let clock = Clock::inspect(state_dir, enrolment.as_ref().map(|e| e.ca_hash));
        let state_dir = state_dir.to_owned();
        Self { state_dir, config, config_error, files, enrolment, enrolment_error, clock }
    }
}

/// Runs every check.
pub(crate) fn examine(subject: &Subject) -> Report {
    let network = network::look(subject); // first: it brings the time, by which others judge
    let mut checks = device::checks(subject);
    checks.extend(identity::checks(subject));
    let reaches_cloud = network.reaches_cloud;
    checks.extend(network.checks);
    let (runtime, prover) = runtime::checks(subject);
    checks.extend(runtime);
    checks.extend(models::checks(subject, prover.as_ref()));
    checks.extend(local::checks(subject, reaches_cloud));
    Report { checks }
}

/// Runs a look at the world, and gives up on it after `patience`.
fn bounded(patience: Duration, look: impl FnOnce() -> Finding + Send + 'static) -> Finding {
    let late = || {
        Finding::failed(format!("no result within {} s", patience.as_secs()))
            .hint("is the disk failing, or the machine out of memory? See: dmesg")
    };
    bounded_value(patience, look).unwrap_or_else(late)
}

/// A value, unless it takes longer than `patience`; the thread is left behind then.
fn bounded_value<T: Send + 'static>(
    patience: Duration,
    look: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || sender.send(look()));
    receiver.recv_timeout(patience).ok()
}

/// What is said where enrolment is a condition.
fn needs_enrolment() -> Finding {
    Finding::skipped("this device is not enrolled")
}
