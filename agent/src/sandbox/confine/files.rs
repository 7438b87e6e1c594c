//! Landlock: the child may read what it is told, and write, create, run and connect to nothing.

use super::Layer;
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

pub(super) fn confine(readable: &[PathBuf]) -> Layer {
    match restrict(readable) {
        Ok((RulesetStatus::FullyEnforced, _)) => Layer::Full,
        Ok((RulesetStatus::PartiallyEnforced, LandlockStatus::Available { effective_abi, .. })) => {
            let has = effective_abi as i32;
            Layer::Partial(format!("Landlock {has} of {}; Linux 6.12 has all", WANTED as i32))
        }
        Ok((_, LandlockStatus::NotEnabled)) => {
            Layer::None("Landlock is not enabled: boot with lsm=landlock,...".into())
        }
        Ok(_) => Layer::None("this kernel has no Landlock".into()),
        Err(error) => Layer::None(protocol::problem::chain(&error)),
    }
}

fn restrict(readable: &[PathBuf]) -> Result<(RulesetStatus, LandlockStatus), RulesetError> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let system = SYSTEM.iter().map(PathBuf::from);
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?
        .create()?
        .add_rules(path_beneath_rules(system.chain(readable.iter().cloned()), read))?
        .restrict_self()?;
    Ok((status.ruleset, status.landlock))
}
