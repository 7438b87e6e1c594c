//! What a process may use of a GPU: the driver's device files, and what the driver reads to know the
//! machine. The driver's own calls (`ioctl`) are a wide door that no filter sees through; a process
//! gets it only for the one device that its model runs on.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What belongs to all devices of the driver.
const NVIDIA_SHARED: [&str; 4] =
    ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-caps"];
/// What CUDA reads of the system: which devices there are, and which memory is near to them.
const NVIDIA_READS: [&str; 9] = [
    "/proc/driver/nvidia",
    "/proc/devices",
    "/proc/modules",
    "/proc/self",
    "/proc/sys/vm",
    "/sys/bus/pci",
    "/sys/devices",
    "/sys/module",
    "/usr/local/nvidia",
];

/// Devices that a confined process may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accelerator {
    /// Device files that it may read, write and call.
    pub devices: Vec<PathBuf>,
    /// Files and folders that it may read for that.
    pub readable: Vec<PathBuf>,
}

impl Accelerator {
    /// One of [`nvidia_gpus`], by its place among them; `None` where there is none such.
    pub fn nvidia(index: usize) -> Option<Self> {
        let gpu = nvidia_gpus().into_iter().nth(index)?;
        let shared = NVIDIA_SHARED.iter().map(PathBuf::from);
        let readable = NVIDIA_READS.iter().map(PathBuf::from);
        Some(Self {
            devices: std::iter::once(gpu).chain(shared).collect(),
            readable: readable.collect(),
        })
    }
}

/// The device files of the NVIDIA GPUs that this process sees, in the driver's order.
pub fn nvidia_gpus() -> Vec<PathBuf> {
    numbered(Path::new("/dev"), "nvidia")
}

/// Files that are called so, with a number; by that number.
fn numbered(folder: &Path, name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix(name)?.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_in_the_order_of_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["nvidia10", "nvidia2", "nvidia-uvm", "nvidiactl", "nvidia0", "null"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let names: Vec<_> = numbered(folder.path(), "nvidia");
        let names: Vec<_> = names.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(names, ["nvidia0", "nvidia2", "nvidia10"]);
    }
}
