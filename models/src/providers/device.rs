//! What of the machine a choice of providers depends on.

use std::fs;
use std::path::Path;

/// None of the files that an NVIDIA driver makes is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the NVIDIA driver is absent: there is none of {}", NVIDIA_FILES.join(", "))]
pub struct DriverAbsent;

/// A desktop's or server's driver; a Jetson's, old and new; Windows' own one under WSL.
const NVIDIA_FILES: [&str; 4] = ["/dev/nvidiactl", "/dev/nvhost-ctrl", "/dev/nvgpu", "/dev/dxg"];

impl DriverAbsent {
    /// What was looked for.
    pub fn looked_for() -> String {
        NVIDIA_FILES.join(", ")
    }
}

/// Whether there is an NVIDIA driver at all. Without one, loading CUDA's libraries (300 MB and more)
/// only to hear that would be a waste, and what is heard then is often about something else: the
/// first of the libraries that is missing.
///
/// # Errors
/// [`DriverAbsent`]; never on other systems than Linux, where it is left to the library.
pub fn nvidia_driver() -> Result<(), DriverAbsent> {
    let there = !cfg!(target_os = "linux") || NVIDIA_FILES.iter().any(|f| Path::new(f).exists());
    there.then_some(()).ok_or(DriverAbsent)
}

/// The processors of this machine and their drivers, in one line: another line is another machine,
/// for which nothing is known yet.
pub fn identity() -> String {
    let mut parts = vec![cpu()];
    parts.extend(first_line(Path::new("/proc/driver/nvidia/version")));
    let mut gpus: Vec<String> = Vec::new();
    for entry in fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path().join("information")).unwrap_or_default();
        let model = text.lines().find_map(|line| line.strip_prefix("Model:"));
        gpus.extend(model.map(|model| model.trim().to_owned()));
    }
    gpus.extend(names("/dev/dri"));
    gpus.extend(names("/dev/accel"));
    gpus.sort();
    parts.extend(gpus);
    parts.join("; ")
}

fn cpu() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field("model name").or_else(|| field("CPU part")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let arch = std::env::consts::ARCH;
    format!("{arch} {model} x {cores}")
}

fn first_line(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.lines().next()?.to_owned())
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| format!("{folder}/{}", entry.file_name().to_string_lossy())).collect()
}
