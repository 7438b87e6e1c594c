//! On what was measured: figures of speed, and of integers' accuracy, hold for processors of this kind.

use serde::Serialize;

use models::backend::Backend;

/// A processor and a runtime.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The processor's name, where the system says it.
    pub processor: String,
    /// Its instructions for integers and wide vectors.
    pub features: Vec<String>,
    /// ONNX Runtime and the execution provider.
    pub runtime: String,
}

/// The instructions that decide how integers are multiplied.
const FEATURES: [&str; 12] = [
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx_vnni_int8",
    "amx_int8",
    "amx_bf16",
    "avx512_bf16",
    "asimddp",
    "i8mm",
    "sve",
    "neon",
];

impl Machine {
    /// This one.
    pub fn own(backend: &dyn Backend) -> Self {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let value = |names: [&str; 2]| {
            let line = text.lines().find(|line| names.iter().any(|name| line.starts_with(name)));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let flags = value(["flags", "Features"]).unwrap_or_default();
        let known = FEATURES.iter().filter(|name| flags.split(' ').any(|flag| flag == **name));
        Self {
            processor: value(["model name", "CPU part"])
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            features: known.map(|name| (*name).to_owned()).collect(),
            runtime: format!("{}, provider cpu, one thread", backend.identity()),
        }
    }
}
