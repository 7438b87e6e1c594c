//! On what a figure was measured: a time holds for a processor with these instructions.

use protocol::measurement::Machine;

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

/// This machine, where a runtime of this identity runs models on the CPU with so many threads.
pub fn own(runtime: &str, threads: usize) -> Machine {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |names: [&str; 2]| {
        let line = text.lines().find(|line| names.iter().any(|name| line.starts_with(name)));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let flags = value(["flags", "Features"]).unwrap_or_default();
    let known = FEATURES.iter().filter(|name| flags.split(' ').any(|flag| flag == **name));
    let threads = if threads == 1 { "one thread".to_owned() } else { format!("{threads} threads") };
    Machine {
        processor: value(["model name", "CPU part"])
            .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        features: known.map(|name| (*name).to_owned()).collect(),
        runtime: format!("{runtime}, provider cpu, {threads}"),
    }
}
