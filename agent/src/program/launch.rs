//! The first thing that `run` does. The installed program looks which program this start begins with, writes that
//! down, and runs it in its own place. Whatever is wrong with that one, or with the record, the installed
//! program itself runs.
//!
//! This code is the fixed point of the device: the installed program's, whichever programs follow. So it needs
//! no configuration, no database and no network.

use super::alarm;
use super::record::Record;
use super::slots::Slots;
use crate::lock::StateLock;
use edge::takeover::{Launch, Start};
use protocol::release::ReleaseVersion;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Says to the program that is begun with which one is installed, and that it is not to choose again.
const LAUNCHER: &str = "OUTRIGGER_LAUNCHER";

/// Says to it of which version the installed one is.
const INSTALLED: &str = "OUTRIGGER_INSTALLED";

/// How this process came to be what it is.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    /// The installed program.
    pub(crate) launcher: PathBuf,
    /// Its version.
    pub(crate) installed: ReleaseVersion,
    /// This is a program that is kept, and not the installed one.
    pub(crate) is_kept: bool,
}

/// Chooses, and comes back if this is the program to run.
pub(crate) fn begin(state_dir: &Path) -> io::Result<Begun> {
    if let Some(launcher) = std::env::var_os(LAUNCHER) {
        name_process();
        let installed = std::env::var(INSTALLED).ok().and_then(|text| text.parse().ok());
        let installed = installed.unwrap_or(ReleaseVersion::new(0, 0, 0));
        return Ok(Begun { launcher: launcher.into(), installed, is_kept: true });
    }
    alarm::set(0); // that of a candidate that was this process before, and gave way
    let installed = super::own_mark().version;
    let begun = Begun { launcher: std::env::current_exe()?, installed, is_kept: false };
    let record = Record::of(state_dir);
    if record.exists() {
        // Where another agent works, `run` says so; this is no start.
        if let Ok(_lock) = StateLock::take(state_dir) {
            choose(&record, &Slots::of(state_dir), &begun);
        }
    }
    Ok(begun)
}

/// Comes back when it is the installed program's turn.
fn choose(record: &Record, slots: &Slots, begun: &Begun) {
    let mut takeover = match record.read() {
        Ok(takeover) => takeover,
        Err(error) => return say(&protocol::problem::chain(&error)),
    };
    let (mut written, boot) = (takeover.clone(), super::boot());
    let installed = begun.installed;
    let start = Start { installed, boot: &boot, uptime_s: uptime_s() };
    loop {
        let current = takeover.current.clone();
        let mut launch = takeover.launch(start);
        match (takeover != written).then(|| record.write(&takeover)) {
            Some(Err(error)) => {
                // What cannot be counted is not tried; what has taken over may run.
                say(&protocol::problem::chain(&error));
                launch = Launch { program: current, alarm_s: None };
            }
            Some(Ok(())) => written = takeover.clone(),
            None => {}
        }
        let Some(program) = launch.program else { return };
        let why = match slots.open(&program) {
            Ok(file) => format!("does not start: {}", exec(&file, begun, launch.alarm_s)),
            Err(error) => protocol::problem::chain(&error),
        };
        say(&format!("the program of version {} {why}", program.version));
        alarm::set(0);
        takeover.damaged(&program, &why); // once for each, so this comes to an end
    }
}

/// Runs a program in the place of this one. Comes back with the reason where that fails.
fn exec(program: &File, begun: &Begun, alarm_s: Option<u32>) -> io::Error {
    alarm::set(alarm_s.unwrap_or(0));
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| OsString::from("outrigger-agent"));
    // The very file that was looked at, whatever has its name by now.
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    let mut command = Command::new(path);
    command.env(LAUNCHER, &begun.launcher).env(INSTALLED, begun.installed.to_string());
    command.arg0(name).args(arguments).exec()
}

/// Begins anew with the installed program, as it is by now. Comes back with the reason where that fails.
pub(crate) fn begin_anew(begun: &Begun) -> io::Error {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| OsString::from("outrigger-agent"));
    Command::new(&begun.launcher)
        .arg0(name)
        .args(arguments)
        .env_remove(LAUNCHER)
        .env_remove(INSTALLED)
        .exec()
}

/// A process that was begun with an open file would be called by the file's number.
fn name_process() {
    let _ = rustix::thread::set_name(c"outrigger-agent"); // for people only
}

/// Seconds since the device started; 0 where the system does not tell.
fn uptime_s() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

/// There is no log yet.
fn say(what: &str) {
    eprintln!("outrigger-agent: {what}");
}
