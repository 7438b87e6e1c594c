//! A disk whose writes fail with an input/output error, for as long as a test wants: a file system on a block
//! device whose file lies on another such, whose own has no room. What a program writes is taken at first, as
//! disks do; the error comes when it asks for that to be durable.

use crate::small_disk::{Mounted, SmallDisk};
use anyhow::{Context, ensure};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the devices seem to have; their room is what the first one really has.
const SEEMING_BYTES: [u64; 2] = [64 << 20, 32 << 20];

/// It; nothing is left of it at the end.
pub struct FailingDisk {
    _disk: Mounted, // they go before what they lie on
    _between: Mounted,
    room: SmallDisk,
}

/// While this lives, nothing that is new can be made durable.
pub struct Failing(PathBuf);

impl FailingDisk {
    /// Mounts it at `folder`, with what it lies on in `beside`. `None`, with the reason printed, where this
    /// cannot be made.
    ///
    /// # Errors
    /// A file system that cannot be made.
    pub fn mount(folder: &Path, beside: &Path) -> anyhow::Result<Option<Self>> {
        let Some(room) = SmallDisk::mount(&beside.join("room")) else { return Ok(None) };
        let between = mounted(&beside.join("room/disk"), SEEMING_BYTES[0], &beside.join("between"));
        let between = between.context("the disk between")?;
        let disk = mounted(&beside.join("between/disk"), SEEMING_BYTES[1], folder)?;
        // What mkfs leaves in a fresh file system is nothing of a spool's.
        std::fs::remove_dir(folder.join("lost+found"))?;
        Ok(Some(Self { _disk: disk, _between: between, room }))
    }

    /// From now on.
    ///
    /// # Errors
    /// It did not fail before.
    pub fn fail(&self) -> std::io::Result<Failing> {
        self.room.fill().map(Failing)
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Without a journal, for a file system with one is given up at the first error, until it is mounted anew.
fn mounted(image: &Path, bytes: u64, folder: &Path) -> anyhow::Result<Mounted> {
    File::create(image)?.set_len(bytes)?;
    let mut format = Command::new("mkfs.ext4");
    format.args(["-q", "-O", "^has_journal", "-b", "4096", "-N", "256"]);
    run(format.args(["-E", "lazy_itable_init=0"]).arg(image))?;
    std::fs::create_dir_all(folder)?;
    run(Command::new("mount").args(["-o", "loop,errors=continue"]).args([image, folder]))?;
    Ok(Mounted::at(folder))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
