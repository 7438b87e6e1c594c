//! Landlock: the child may read what it is told, use the devices that it is told, and write, create, run
//! and connect to nothing else.

use super::{Accelerator, Layer};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use std::path::PathBuf;

/// What is asked for: files, devices, TCP, signals and abstract sockets (Linux 6.12). An older
/// kernel does what it can.
const WANTED: ABI = ABI::V6;

/// Where a runtime's libraries, and those that it needs, are found; the processor's description,
/// from which it chooses its kernels; randomness. No more than any user may read.
const SYSTEM: [&str; 11] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/nix/store",
    "/etc/ld.so.cache",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
    "/dev/null",
    "/dev/urandom",
];

pub(super) fn confine(readable: &[PathBuf], accelerator: Option<&Accelerator>) -> Layer {
    match restrict(readable, accelerator) {
        Ok((status, landlock)) => layer(&status, landlock),
        Err(error) => Layer::None(protocol::problem::chain(&error)),
    }
}

fn layer(status: &RulesetStatus, landlock: LandlockStatus) -> Layer {
    match (status, landlock) {
        (RulesetStatus::FullyEnforced, _) => Layer::Full,
        (RulesetStatus::PartiallyEnforced, LandlockStatus::Available { effective_abi, .. }) => {
            let has = effective_abi as i32;
            Layer::Partial(format!("Landlock {has} of {}; Linux 6.12 has all", WANTED as i32))
        }
        (_, LandlockStatus::NotEnabled) => {
            Layer::None("Landlock is not enabled: boot with lsm=landlock,...".into())
        }
        _ => Layer::None("this kernel has no Landlock".into()),
    }
}

fn restrict(
    readable: &[PathBuf],
    accelerator: Option<&Accelerator>,
) -> Result<(RulesetStatus, LandlockStatus), RulesetError> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let operate = read | AccessFs::WriteFile | AccessFs::IoctlDev;
    let name = read | AccessFs::WriteFile | AccessFs::Truncate;
    let system = SYSTEM.iter().map(PathBuf::from);
    let none = Accelerator::default();
    // A driver names its threads, and gives up where it cannot: by files, not by a system call.
    let own_threads: &[&str] = if accelerator.is_some() { &["/proc/self/task"] } else { &[] };
    let accelerator = accelerator.unwrap_or(&none);
    let readable = readable.iter().chain(&accelerator.readable).cloned();
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?
        .create()?
        .add_rules(path_beneath_rules(system.chain(readable), read))?
        .add_rules(path_beneath_rules(&accelerator.devices, operate))?
        .add_rules(path_beneath_rules(own_threads, name))?
        .restrict_self()?;
    Ok((status.ruleset, status.landlock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use RulesetStatus::{FullyEnforced, NotEnforced, PartiallyEnforced};

    #[test]
    fn what_a_kernel_lacks_is_said() {
        let has = |effective_abi| LandlockStatus::Available { effective_abi, kernel_abi: None };
        assert_eq!(layer(&FullyEnforced, has(ABI::V7)), Layer::Full);
        let none = |layer| matches!(layer, Layer::None(_));
        assert!(none(layer(&NotEnforced, LandlockStatus::NotEnabled)));
        assert!(none(layer(&NotEnforced, LandlockStatus::NotImplemented)));
        let Layer::Partial(why) = layer(&PartiallyEnforced, has(ABI::V3)) else { panic!() };
        assert!(why.starts_with("Landlock 3 of 6"), "{why}");
    }
}
