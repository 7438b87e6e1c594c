//! What the ends of children mean, and what is remembered of them. The child here is this test
//! program, which knows no `prove-model` and ends without a word; real models are tried in tests/.

#![allow(clippy::unwrap_used)] // helpers beside the tests

use super::*;
use protocol::id::Version;
use protocol::manifest::{FORMAT, Probes};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

fn prover() -> Prover {
    let config: Config = toml::from_str("[sandbox]\nmemory_mb = 512\ntime_limit_s = 60\n").unwrap();
    Prover::new(Path::new("libonnxruntime.so"), &config)
}

#[test]
fn whose_doing_an_end_was() {
    let exited = |code: i32| How::Silent(ExitStatus::from_raw(code << 8));
    let cases = [
        (How::Crashed(11), Stage::Loading, "", "the model crashed (SIGSEGV) while loading"),
        (
            How::Crashed(6),
            Stage::Probing,
            "thread 'trial' has overflowed its stack",
            "the model crashed (SIGABRT) while answering its probes: thread 'trial' has overflowed its stack",
        ),
        (
            How::Crashed(6),
            Stage::Loading,
            "memory allocation of 9 bytes failed",
            "the model wanted more than the 512 MiB of [sandbox] memory_mb, while loading: memory allocation of 9 bytes failed",
        ),
        (
            How::Crashed(31),
            Stage::WarmingUp,
            "",
            "the model asked for a forbidden system call (SIGSYS) in its first run",
        ),
        (How::TimedOut, Stage::Loading, "", "the model was not done after 60 s, while loading"),
        (
            exited(101),
            Stage::Batching,
            "",
            "the model ended its process (exit status: 101) while answering probes in batches",
        ),
    ];
    for (how, stage, said, expected) in cases {
        let failed = prover().judge(Ending { how, stage, said: said.into() }).unwrap_err();
        assert!(matches!(failed, Failed::Harmful(_)), "{failed:?}");
        assert_eq!(failed.to_string(), expected);
        assert!(!NotProven::Failed(failed).is_passing());
    }
    let passing = [
        (exited(127), Stage::Starting),
        (How::Ended(9), Stage::Loading),
        (How::Ended(15), Stage::Loading),
        (How::Stopped, Stage::Loading),
    ];
    for (how, stage) in passing {
        let failed = prover().judge(Ending { how, stage, said: String::new() }).unwrap_err();
        assert!(NotProven::Failed(failed).is_passing());
    }
}

fn manifest() -> Manifest {
    Manifest {
        format: FORMAT,
        model: "m".parse().unwrap(),
        version: Version::FIRST,
        variant: protocol::id::Variant::Edge,
        inputs: vec![],
        outputs: vec![],
        files: Default::default(),
        preprocess: vec![],
        constants: vec![],
        state: vec![],
        postprocess: vec![],
        default_outputs: vec![],
        classes: None,
        calibration: None,
        thrift: None,
        probes: Probes { file: "probes.pb".into(), tolerance: 0.0 },
        never_leaves_device: false,
        provenance: Default::default(),
    }
}

#[test]
fn a_bundle_whose_trials_never_end_is_quarantined_until_it_is_released() {
    let folder = tempfile::tempdir().unwrap();
    let state = Arc::new(State::open(folder.path()).unwrap());
    let target = Target { version: Version::FIRST, bundle: ContentHash::of(b"bundle") };
    let model: ModelName = "m".parse().unwrap();
    let sandbox = |runtime: &str| {
        let counters = Arc::new(Counters::default());
        Sandbox::new(prover(), runtime.into(), state.clone(), counters).unwrap()
    };
    let first = sandbox("one");
    let admit =
        |sandbox: &Sandbox| sandbox.admit(&model, target, folder.path(), &manifest()).unwrap_err();

    let error = admit(&first); // the child could not even begin
    assert!(error.is_passing() && matches!(error, NotProven::Failed(Failed::NotRun(_))), "{error}");
    for _ in 0..UNCLEAR_ENDS_MAX {
        state.trial_begins(target.bundle).unwrap(); // and then the device lost its power
    }
    let error = admit(&first);
    assert!(error.to_string().starts_with("quarantined: "), "{error}");
    assert!(first.check_quarantine(target.bundle).is_err());
    assert!(sandbox("two").check_quarantine(target.bundle).is_ok(), "another runtime may try");

    assert!(first.release(target.bundle).unwrap());
    assert!(matches!(admit(&first), NotProven::Failed(Failed::NotRun(_))), "tried again");
}
