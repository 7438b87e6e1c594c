//! What the machine is, as far as somebody may ask for it in a query over the fleet: nothing that names its owner.

use crate::config::Runtime;
use models::machine;
use models::providers::{Provider, nvidia_driver};
use protocol::wire::Inventory;

/// Reads it from the system. What that does not tell is left out.
pub(crate) fn read(settings: &Runtime, runtime: &str) -> Inventory {
    let own = machine::own(runtime, 1);
    let nvidia = cfg!(target_os = "linux") && nvidia_driver().is_ok();
    // Of the others only a trial with a model shows whether they work: then they are in its evidence.
    let works = |provider: &&Provider| match provider {
        Provider::Cuda | Provider::TensorRt => nvidia,
        Provider::CoreMl => cfg!(target_os = "macos"),
        Provider::DirectMl => cfg!(target_os = "windows"),
        _ => false,
    };
    let providers = settings.providers.providers().iter().filter(works);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    Inventory {
        cpu_features: own.features,
        cores: u32::try_from(cores).unwrap_or(u32::MAX),
        memory_bytes: memory_bytes().unwrap_or(0),
        providers: providers.map(|provider| provider.as_str().to_owned()).collect(),
        runtime: runtime.to_owned(),
        processor: own.processor,
        gpu: if nvidia { "nvidia" } else { "none" }.to_owned(),
    }
}

fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something() {
        let own = read(&Runtime::default(), "ONNX Runtime 1.2");
        assert!(own.cores > 0 && own.memory_bytes > 1 << 20, "{own:?}");
        assert!(["nvidia", "none"].contains(&own.gpu.as_str()));
        assert_eq!(own.providers.iter().any(|own| own == "cuda"), own.gpu == "nvidia");
    }
}
