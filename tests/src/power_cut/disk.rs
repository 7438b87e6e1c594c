//! A disk that can be copied at any moment.

use anyhow::{Context, bail, ensure};
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

const DISK_MIB: u32 = 32;
const BLOCK_BYTES: usize = 4096;
/// No flush by itself: not by time, and not where a file is replaced without a sync.
const AS_A_DISK: &str = "loop,commit=300,noauto_da_alloc";
/// Attempts to read the image twice without a write in between.
const READS_MAX: usize = 100;

/// A folder in memory with the images.
pub(super) struct Room {
    _memory: Mount, // goes before the folder that it lies on
    folder: tempfile::TempDir,
}

/// A mounted file system; it goes when this does.
pub(super) struct Mount(PathBuf);

/// The disk of a device.
pub(super) struct Disk {
    image: PathBuf,
    mount: Mount,
}

impl Room {
    pub(super) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("outrigger-power-").tempdir()?;
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4g", "tmpfs"])
            .arg(folder.path()))?;
        let _memory = Mount(folder.path().to_owned());
        Ok(Self { folder, _memory })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A fresh disk.
    pub(super) fn disk(&self, name: &str) -> anyhow::Result<Disk> {
        let image = self.path(&format!("{name}.img"));
        File::create(&image)?.set_len(u64::from(DISK_MIB) << 20)?;
        let mut format = Command::new("mkfs.ext4");
        // Nothing is left to be written in the background.
        let now = "lazy_itable_init=0,lazy_journal_init=0";
        run(format.args(["-q", "-b", "4096", "-J", "size=4", "-E", now]).arg(&image))?;
        let mount = self.mount(&image, name, AS_A_DISK)?;
        Ok(Disk { image, mount })
    }

    fn mount(&self, image: &Path, name: &str, options: &str) -> anyhow::Result<Mount> {
        let folder = self.path(name);
        fs::create_dir_all(&folder)?;
        run(Command::new("mount").args(["-o", options]).arg(image).arg(&folder))?;
        Ok(Mount(folder))
    }

    /// Opens a copy as the device would after the cut: its journal is replayed, and the file system is whole.
    pub(super) fn mount_after_cut(&self, image: &Path) -> anyhow::Result<Mount> {
        drop(self.mount(image, "copy", "loop").context("the copy does not mount")?);
        run(Command::new("e2fsck").arg("-fn").arg(image)).context("the file system")?;
        self.mount(image, "copy", "loop")
    }

    /// The method itself: what was synced is in a copy, what was not is not.
    pub(super) fn control(&self) -> anyhow::Result<()> {
        let disk = self.disk("control")?;
        link::durable::write(&disk.folder().join("synced"), b"x", link::durable::Access::Public)?;
        fs::write(disk.folder().join("unsynced"), "x")?;
        let copy = self.path("control-copy.img");
        write_sparse(&disk.copy()?, &copy)?;
        let mount = self.mount(&copy, "control-copy", "loop")?;
        let kept = ["synced", "unsynced"].map(|name| mount.folder().join(name).exists());
        ensure!(kept == [true, false], "a copy does not show a power cut here: {kept:?}");
        Ok(())
    }
}

impl Mount {
    pub(super) fn folder(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A program that has not ended yet keeps it busy: then it goes with that program.
        let plain = run(Command::new("umount").arg(&self.0));
        if plain.is_err() {
            let _ = run(Command::new("umount").arg("--lazy").arg(&self.0));
        }
    }
}

impl Disk {
    pub(super) fn folder(&self) -> &Path {
        self.mount.folder()
    }

    /// What a power cut would leave now. Whoever writes to it must stand still; what the system itself
    /// still writes is waited for.
    pub(super) fn copy(&self) -> anyhow::Result<Vec<u8>> {
        let mut before = fs::read(&self.image)?;
        for _ in 0..READS_MAX {
            let again = fs::read(&self.image)?;
            if again == before {
                return Ok(again);
            }
            before = again;
        }
        bail!("the image did not come to rest")
    }

    /// The disk as a cut has left it: its journal is replayed, and it is whole. Whoever wrote to it has ended.
    pub(super) fn go_on_from(self, room: &Room, left: &[u8]) -> anyhow::Result<Self> {
        let Self { image, mount } = self;
        let folder = mount.folder().to_owned();
        drop(mount); // what it still writes is gone with the cut
        fs::remove_file(&image)?;
        write_sparse(left, &image)?;
        drop(room.mount_after_cut(&image)?);
        let name = folder.file_name().context("a mount without a name")?.to_string_lossy();
        let mount = room.mount(&image, &name, AS_A_DISK)?;
        Ok(Self { image, mount })
    }

    /// Everything is written.
    pub(super) fn sync(&self) -> anyhow::Result<()> {
        run(Command::new("sync").arg("--file-system").arg(self.folder()))
    }
}

/// Blocks of zeros take no memory.
pub(super) fn write_sparse(bytes: &[u8], path: &Path) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    file.set_len(bytes.len() as u64)?;
    for (index, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            file.seek(SeekFrom::Start((index * BLOCK_BYTES) as u64))?;
            file.write_all(block)?;
        }
    }
    Ok(())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
