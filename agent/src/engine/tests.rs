//! Loading, remembering and making room, with the stand-in backend.

use super::*;
use crate::config::Config;
use crate::state::State;
use models::authoring::Author;
use models::fake::FakeBackend;
use models::providers::{Agreement, Choice, PassedOver, Provider, Reason};
use protocol::id::Variant;
use protocol::infer::InferRequest;
use protocol::manifest::Manifest;
use protocol::tensor::Tensor;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What one model takes: its file, which is larger than anything that loading a stand-in takes.
const SIZE_BYTES: u64 = 3_000_000;

/// Memory is measured, and all tests share one process.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Shop {
    folder: tempfile::TempDir,
    state: State,
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        Self { folder, state }
    }

    /// A bundle whose model has these lines.
    fn bundle(&self, name: &str, lines: &str) -> (PathBuf, Manifest) {
        let recipe = format!(
            "name = \"{name}\"\n[variants]\nedge = {{ onnx = \"edge.txt\" }}\n[probes]\n\
             tolerance = 1e-6\ninputs = [{{ input = \"x\", file = \"x.f32\", datatype = \"FP32\", \
             item_shape = [2] }}]\n"
        );
        let model =
            format!("fake\ninput x FP32 -1 2\noutput y FP32 -1 2\non cpu delay_ms 10\n{lines}\n");
        let padding = " ".repeat(usize::try_from(SIZE_BYTES).unwrap() - model.len());
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("model.toml"), recipe).unwrap();
        std::fs::write(folder.join("edge.txt"), model + &padding).unwrap();
        std::fs::write(folder.join("x.f32"), [1_f32, 2.0].map(f32::to_le_bytes).concat()).unwrap();
        let out = folder.join("out");
        let author = Author::open(&folder).unwrap();
        let backend = FakeBackend::default();
        let manifest = author.build(Variant::Edge, Version::FIRST, &backend, &out).unwrap();
        (out, manifest)
    }

    fn prove(
        &self,
        engine: &Engine,
        (folder, manifest): &(PathBuf, Manifest),
    ) -> Result<ActiveModel, ProveError> {
        let bundle = protocol::id::ContentHash::of(&manifest.to_json());
        let target = Target { version: manifest.version, bundle };
        let manifest = manifest.clone();
        let bundled = Bundled { folder, manifest, target, cloud_variant: false };
        tokio::task::block_in_place(|| engine.prove(&bundled, &self.state))
    }
}

fn engine(config: &str) -> (Arc<Engine>, Arc<Counters>) {
    let config: Config = toml::from_str(config).unwrap();
    let counters = Arc::new(Counters::default());
    let backend = Arc::new(FakeBackend::offering(&[Provider::Cuda, Provider::Qnn]));
    let folder = tempfile::tempdir().unwrap();
    let (marks, _) = Marks::open(folder.path(), "boot");
    let engine = Engine::new(backend, config.runtime, config.models, counters.clone(), marks);
    (Arc::new(engine), counters)
}

fn request(model: &str) -> InferRequest {
    let x = Tensor::from_f32("x", vec![1, 2], &[1.0, 2.0]).unwrap();
    InferRequest {
        model: model.parse().unwrap(),
        version: None,
        id: String::new(),
        inputs: vec![x],
        outputs: Vec::new(),
        deadline_ms: None,
        priority: 0,
        sequence: None,
        hint: protocol::infer::PlacementHint::Auto,
    }
}

fn count(counters: &Counters, name: &str) -> u64 {
    serde_json::to_value(counters).unwrap()["memory"][name].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_wait_share_one_load() {
    let _alone = ALONE.lock().await;
    let shop = Shop::new();
    let (engine, counters) = engine("[runtime]\nproviders = []\nmemory_budget_mb = 8");
    let names = ["a", "b", "c"];
    let models: Vec<_> = names
        .iter()
        .map(|name| Arc::new(shop.prove(&engine, &shop.bundle(name, "")).unwrap()))
        .collect();
    assert_eq!(models[0].running().memory, "on demand");
    assert!(count(&counters, "evictions") >= 1);
    let deadline = Instant::now() + Duration::from_secs(60);
    let ask = |name: &'static str, model: &Arc<ActiveModel>| {
        let model = model.clone();
        tokio::spawn(async move { model.run(&request(name), None, deadline).await.map(drop) })
    };
    let asked: Vec<_> = (0..20).map(|_| ask("a", &models[0])).collect();
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(count(&counters, "reloads"), 1);
    assert_eq!(models[0].running().memory, "resident");

    // All of them at once, again and again: each gets its turn, and the budget holds.
    let asked: Vec<_> = (0..24).map(|i| ask(names[i % 3], &models[i % 3])).collect();
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    let (budget, taken) = engine.memory();
    assert!(taken <= budget.unwrap());
    assert_eq!(count(&counters, "failures"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_fit_is_refused_for_good() {
    let _alone = ALONE.lock().await;
    let shop = Shop::new();
    let bundle = shop.bundle("a", "");
    for config in [
        "[runtime]\nmemory_budget_mb = 2",
        "[runtime]\nmemory_limit_mb = 2",
        "[models.a]\nmemory_limit_mb = 2",
    ] {
        let error = shop.prove(&engine(config).0, &bundle).err().unwrap();
        assert!(!error.is_passing(), "{error}");
        let text = error.to_string();
        assert!(text.contains("bytes of memory"), "{text}");
    }
    let others = engine("[models.b]\nmemory_limit_mb = 2\n[runtime]\nproviders = []").0;
    assert!(shop.prove(&others, &bundle).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_is_remembered_until_it_does_not_work_any_more() {
    let _alone = ALONE.lock().await;
    let shop = Shop::new();
    let bundle = shop.bundle("a", "on cuda scale 1.001\non qnn refuse");
    let (own, _) = engine("");
    let first = shop.prove(&own, &bundle).unwrap();
    let choice = first.running().choice;
    assert_eq!((choice.provider, choice.probes), (Provider::Cuda, Agreement::Within));

    let hash = first.target().bundle;
    let mut known = shop.state.remembered(hash).unwrap().unwrap();
    assert_eq!(known.choice, choice);
    let mark = PassedOver { provider: Provider::Xnnpack, reason: Reason::Untold };
    known.choice.passed_over = vec![mark];
    shop.state.remember(hash, &known).unwrap();
    let again = shop.prove(&own, &bundle).unwrap();
    assert_eq!(again.running().choice, known.choice, "not found out a second time");

    known.choice.provider = Provider::Qnn;
    shop.state.remember(hash, &known).unwrap();
    let anew = shop.prove(&own, &bundle).unwrap();
    let anew = anew.running().choice;
    let found = |choice: &Choice| (choice.provider, choice.passed_over.clone());
    assert_eq!(found(&anew), found(&choice), "what does not open any more is found out anew");

    let other = engine("[models.a]\nproviders = [\"qnn\"]").0;
    let cpu = shop.prove(&other, &bundle).unwrap();
    assert_eq!(cpu.running().choice.provider, Provider::Cpu, "under other conditions");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_on_sees_every_run_and_what_is_behind_is_known() {
    use super::observers::Seen;
    use std::sync::Mutex;
    let _alone = ALONE.lock().await;
    let shop = Shop::new();
    let (engine, _) = engine("[models.a]\nproviders = [\"qnn\", \"cuda\"]");
    let name: ModelName = "a".parse().unwrap();
    for (one, other, behind) in [
        (Provider::Cpu, Provider::Cuda, true),
        (Provider::Cuda, Provider::Qnn, true),
        (Provider::Qnn, Provider::Cpu, false),
        (Provider::Cpu, Provider::Cpu, false),
    ] {
        assert_eq!(engine.is_behind(&name, one, other), behind, "{one} {other}");
    }
    let model = Arc::new(shop.prove(&engine, &shop.bundle("a", "on qnn refuse")).unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let observer = |by: &'static str| -> Observer {
        let seen = seen.clone();
        Arc::new(move |run: &Seen<'_>| {
            assert!(run.alone && run.request.model.as_str() == "a");
            seen.lock().unwrap().push((by, run.end.is_ok()));
        })
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut wrong = request("a");
    wrong.inputs.clear();
    model.watch(observer("watch"));
    let tapped = model.tap(observer("tap"));
    model.until_idle().await;
    model.run(&request("a"), None, deadline).await.unwrap();
    drop(tapped);
    model.run(&wrong, None, deadline).await.unwrap_err();
    let expected = [("watch", true), ("tap", true), ("watch", false)];
    assert_eq!(*seen.lock().unwrap(), expected);
    assert!(model.has_place());
}
