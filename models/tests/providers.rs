//! Which execution provider is chosen, with the stand-in backend for all that can go wrong, and with
//! whatever library is installed here.

#![allow(clippy::unwrap_used)]

use outrigger_models::authoring::Author;
use outrigger_models::backend::SessionOptions;
use outrigger_models::bundle::Bundle;
use outrigger_models::fake::FakeBackend;
use outrigger_models::model::{LoadedModel, ModelOptions};
use outrigger_models::providers::{
    ACCELERATORS, Agreement, Choice, ChooseError, NodeCount, Provider, Reason, choose,
};
use protocol::id::{Variant, Version};

mod support;

const RECIPE: &str = r#"
name = "coin"
[classes]
logits = "logits"
[variants]
edge = { onnx = "edge.txt" }
[probes]
tolerance = 1e-6
inputs = [{ input = "x", file = "x.f32", datatype = "FP32", item_shape = [2] }]
"#;

/// A bundle whose model has these lines beside its tensors. It is measured before they are added.
fn bundle(lines: &str) -> (tempfile::TempDir, Bundle) {
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, bytes: &[u8]| std::fs::write(folder.path().join(file), bytes).unwrap();
    let model = "fake\ninput x FP32 -1 2\noutput logits FP32 -1 2\non cpu delay_ms 10\n";
    let items: [f32; 8] = [0.0, 1.0, 2.0, 0.0, 0.5, 0.5, 30.0, 20.0];
    write("edge.txt", format!("{model}{lines}").as_bytes());
    write("model.toml", RECIPE.as_bytes());
    write("x.f32", &items.map(f32::to_le_bytes).concat());
    let out = folder.path().join("out");
    let author = Author::open(folder.path()).unwrap();
    let backend = FakeBackend::default();
    let manifest = author.build(Variant::Edge, Version::FIRST, &backend, &out).unwrap();
    (folder, Bundle::open(&out, manifest).unwrap())
}

const TRIED: [Provider; 2] = [Provider::Cuda, Provider::Xnnpack];

fn choice(lines: &str) -> Choice {
    let (_folder, bundle) = bundle(lines);
    let backend = FakeBackend::offering(&TRIED);
    choose(&backend, &bundle, &SessionOptions::default(), &TRIED, &any).unwrap()
}

/// Every provider may be tried.
fn any(_: Provider) -> Result<(), Reason> {
    Ok(())
}

/// The first of two providers misbehaves: the second is used, and the first one's reason is told.
fn check(lines: &str, expected: &str) {
    let choice = choice(lines);
    let reason = choice.passed_over[0].reason.to_string();
    assert!(reason.contains(expected), "{lines}: {reason}");
    assert_eq!(choice.passed_over[0].provider, Provider::Cuda);
    assert_eq!(choice.provider, Provider::Xnnpack, "{lines}");
}

#[test]
fn the_first_that_proves_itself_is_used() {
    let choice = choice("on cuda takes 3 4\non cuda scale 1.001");
    assert_eq!(choice.provider, Provider::Cuda);
    assert_eq!(choice.nodes, Some(NodeCount { taken: 3, all: 4 }));
    assert_eq!(choice.probes, Agreement::Within);
    assert!(choice.timing.is_some());
    assert_eq!(choice.passed_over.len(), 1);
    assert_eq!(choice.passed_over[0].reason, Reason::Later { used: Provider::Cuda });
}

#[test]
fn the_same_bits_are_told_from_nearly_the_same() {
    assert_eq!(choice("").probes, Agreement::Exact);
}

#[test]
fn what_does_not_prove_itself_is_passed_over_with_the_reason() {
    check("on cuda refuse", "no session opens on it: told to refuse");
    check("on cuda takes 0 4", "takes none of the model's 4 nodes");
    check("on cuda untold", "does not tell what would run");
    check("on cuda nan", "holds NaN");
    check("on cuda scale 1.1", "differently from the CPU");
    check("on cuda fail 2", "it fails on probe 1: ");
    check("on cuda delay_ms 40", "slower than the CPU: ");
    check("on cuda output other FP32 1", "no session opens on it: the model ");
}

#[test]
fn what_must_not_be_tried_is_passed_over_with_its_reason() {
    let (_folder, bundle) = bundle("");
    let backend = FakeBackend::offering(&TRIED);
    let ends = Reason::EndsTheProgram { times: 2 };
    let may_try = |provider| if provider == Provider::Cuda { Err(ends.clone()) } else { Ok(()) };
    let options = SessionOptions::default();
    let choice = choose(&backend, &bundle, &options, &TRIED, &may_try).unwrap();
    assert_eq!((choice.provider, &choice.passed_over[0].reason), (Provider::Xnnpack, &ends));
}

#[test]
fn the_cpu_remains_and_what_was_not_offered_costs_nothing() {
    let (folder, bundle) = bundle("");
    let options = SessionOptions::default();
    std::fs::remove_file(folder.path().join("out/model.onnx")).unwrap(); // nothing is loaded
    let none = choose(&FakeBackend::default(), &bundle, &options, &ACCELERATORS, &any).unwrap();
    assert_eq!((none.provider, none.timing), (Provider::Cpu, None));
    assert_eq!(none.passed_over.len(), ACCELERATORS.len());
    assert!(none.passed_over.iter().all(|p| p.reason == Reason::NotBuiltIn));

    let choice = choice("on cuda refuse\non xnnpack nan");
    assert_eq!(choice.provider, Provider::Cpu);
    assert_eq!(choice.passed_over.len(), 2);
}

#[test]
fn a_model_that_fails_on_the_cpu_is_nobodys() {
    let (folder, bundle) = bundle("");
    let broken = "fake\ninput x FP32 -1 2\noutput logits FP32 -1 2\nscale 3\non cuda scale 1";
    std::fs::write(folder.path().join("out/model.onnx"), broken).unwrap();
    let backend = FakeBackend::offering(&TRIED);
    let result = choose(&backend, &bundle, &SessionOptions::default(), &TRIED, &any);
    assert!(matches!(result, Err(ChooseError::Probes(_))), "{result:?}");
}

#[test]
fn probes_of_a_chosen_provider_are_judged_as_when_it_was_chosen() {
    let check = |provider| {
        let (_folder, bundle) = bundle("on cuda scale 1.001");
        let session = SessionOptions { provider, ..SessionOptions::default() };
        let options = ModelOptions { session, ..ModelOptions::default() };
        let backend = FakeBackend::offering(&TRIED);
        let model = LoadedModel::load(&backend, bundle, &options).unwrap();
        model.warm_up().unwrap();
        model.check_probes().unwrap()
    };
    assert_eq!(check(Provider::Cpu), 4);
    assert_eq!(check(Provider::Cuda), 4);
}

/// Whatever library is here: what is chosen took nodes, and all others have a reason. On the library
/// that `cargo xtask setup` brings, that is the CPU; `OUTRIGGER_ORT_LIB` names another.
#[test]
fn the_installed_library_is_examined_honestly() {
    use outrigger_models::backend::Backend;
    let zoo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo/fashion");
    let out = tempfile::tempdir().unwrap();
    let backend = support::backend();
    let author = Author::open(&zoo).unwrap();
    let folder = out.path().join("cloud");
    let manifest = author.build(Variant::Cloud, Version::FIRST, &backend, &folder).unwrap();
    let bundle = Bundle::open(&folder, manifest).unwrap();
    let options = SessionOptions::default();
    let choice = choose(&backend, &bundle, &options, &ACCELERATORS, &any).unwrap();
    println!("{}: {choice:#?}", backend.identity());
    let wanted = ACCELERATORS.len() - usize::from(choice.provider != Provider::Cpu);
    assert_eq!(choice.passed_over.len(), wanted);
    assert_eq!(choice.provider == Provider::Cpu, choice.nodes.is_none());
    assert!(choice.nodes.is_none_or(|nodes| 0 < nodes.taken && nodes.taken <= nodes.all));
    for passed in &choice.passed_over {
        let untried = matches!(passed.reason, Reason::NotBuiltIn | Reason::Later { .. });
        let offered = backend.offers(passed.provider).is_ok();
        assert!(untried || offered || passed.reason.kind() == "driver-absent", "{passed:?}");
        if !offered {
            let session = SessionOptions { provider: passed.provider, ..options.clone() };
            assert!(backend.load(&bundle.model_path(), &session).is_err(), "{passed:?}");
        }
    }
}
