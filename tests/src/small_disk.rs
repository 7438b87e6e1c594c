//! A small file system of its own, to be filled.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// It; nothing is left of it at the end.
pub struct SmallDisk(Mounted);

/// A mounted file system; it goes when this does.
pub(crate) struct Mounted(PathBuf);

impl SmallDisk {
    /// `None`, with the reason printed, where this cannot be made.
    pub fn mount(folder: &Path) -> Option<Self> {
        std::fs::create_dir_all(folder).ok()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs"]).arg(folder);
        match mount.output() {
            Ok(output) if output.status.success() => Some(Self(Mounted::at(folder))),
            _ => {
                println!("SKIPPED: only root can mount a small disk");
                None
            }
        }
    }

    /// Takes all space that is left.
    ///
    /// # Errors
    /// There was none.
    pub fn fill(&self) -> std::io::Result<PathBuf> {
        let path = self.0.0.join("filler");
        let mut file = std::fs::File::create(&path)?;
        while file.write_all(&[0; 4096]).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
        Ok(path)
    }
}

impl Mounted {
    /// What is mounted there.
    pub(crate) fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
