//! A model's version is exchanged again and again while callers ask it: no call may fail or get the
//! answer of another version than it names, and what the cloud takes must not grow. What is old is gone
//! from memory and from where models are loaded, and answers again when it is wanted.

use crate::bench::{BenchReport, Goal, Row, rounded};
use crate::callers::{Call, Https, KeyHolder};
use crate::onnx::{perceptron, perceptron_probes, perceptron_specs};
use crate::world::{Api, Publisher, Single, World, eventually};
use anyhow::{Context, bail, ensure};
use protocol::id::Variant;
use protocol::tensor::Tensor;
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How often.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Exchanges before memory is looked at for the first time.
    pub warm_up: u64,
    /// Exchanges after that.
    pub swaps: u64,
}

impl Amount {
    /// The whole proof.
    pub const WHOLE: Self = Self { warm_up: 50, swaps: 1000 };
    /// To see that it runs and holds.
    pub const SHORT: Self = Self { warm_up: 5, swaps: 20 };
}

const MODEL: &str = "swapped";
const CALLERS: usize = 4;

/// Two models in turn: the odd versions and the even ones.
struct Versions {
    files: [Vec<u8>; 2],
    probes: [Vec<(Tensor, Tensor)>; 2],
}

impl Versions {
    fn make(folder: &Path) -> anyhow::Result<Self> {
        let files = [perceptron(1), perceptron(2)];
        let probes = files.each_ref().map(|onnx| perceptron_probes(folder, onnx));
        let [even, odd] = probes;
        Ok(Self { files, probes: [even?, odd?] })
    }

    /// Whether this is what the version answers to the first probe.
    fn is_answer(&self, version: u64, got: &[f32]) -> anyhow::Result<bool> {
        let expected = &self.probes[usize::from(!version.is_multiple_of(2))][0].1;
        let expected = expected.to_f32().context("no numbers")?;
        let near = |(a, b): (&f32, f32)| (a - b).abs() <= 1e-5 * (1.0 + b.abs());
        Ok(got.iter().zip(expected).all(near))
    }

    fn publish(&self, publisher: &Publisher, version: u64) -> anyhow::Result<()> {
        let (input, output) = perceptron_specs();
        let at = usize::from(!version.is_multiple_of(2));
        publisher.publish_single(&Single {
            model: MODEL.into(),
            version,
            variant: Variant::Cloud,
            onnx: self.files[at].clone(),
            input,
            output,
            probes: self.probes[at].clone(),
        })
    }
}

/// What became of the calls.
#[derive(Default)]
struct Calls {
    ended: AtomicBool,
    answered: AtomicU64,
}

/// Calls until the end; every answer is that of the version which it names, and versions only grow.
async fn call(who: &KeyHolder, versions: &Versions, calls: &Calls) -> anyhow::Result<()> {
    let mut https = Https::connect(who).await?;
    let (input, _) = &versions.probes[0][0];
    let parameters = json!({ "timeout": 10_000_000 });
    let call = Call::new(who, MODEL, (std::slice::from_ref(input), &[]), &parameters);
    let mut last = 0;
    while !calls.ended.load(Relaxed) {
        let reply = https.call(&call).await?;
        let outputs = match reply.said()? {
            Ok(outputs) => outputs,
            Err(problem) => bail!("after version {last}: {problem}"),
        };
        let named =
            reply.json()?["model_version"].as_str().context("no version")?.parse::<u64>()?;
        ensure!(named >= last, "version {named} answered after version {last}");
        last = named;
        let got = outputs[0].to_f32().context("no numbers")?;
        ensure!(versions.is_answer(named, &got)?, "version {named} gave another's answer");
        calls.answered.fetch_add(1, Relaxed);
    }
    Ok(())
}

/// The first version is neither in memory nor laid out, and is described and answers where a policy names
/// it.
fn ask_the_first(world: &World, versions: &Versions) -> anyhow::Result<()> {
    let laid_out =
        || std::fs::read_dir(world.cloud.data_dir().join("bundles")).map(Iterator::count);
    let one = || (laid_out().ok()? == 1).then_some(());
    eventually("the files of the last version alone", Duration::from_secs(10), one)?;
    world.operator.run(&["model", "policy", MODEL, "--all"])?;
    let api = Api::with_key_of(&world.operator)?;
    let path = format!("/v2/models/{MODEL}/versions/1");
    let described = api.accepted("GET", &path, b"")?.json();
    ensure!(described["inputs"][0]["name"] == "x", "{described}");
    let (input, _) = &versions.probes[1][0];
    let input =
        json!({ "name": "x", "datatype": "FP32", "shape": input.shape(), "data": input.to_f32() });
    let body = json!({ "parameters": { "timeout": 10_000_000 }, "inputs": [input] }).to_string();
    let reply = api.accepted("POST", &format!("{path}/infer"), body.as_bytes())?.json();
    let got: Vec<f32> = serde_json::from_value(reply["outputs"][0]["data"].clone())?;
    ensure!(reply["model_version"] == "1" && versions.is_answer(1, &got)?, "{reply}");
    Ok(())
}

/// Exchanges versions under load.
///
/// # Errors
/// A call that failed, or was answered by another version than it names.
pub fn run(amount: Amount) -> anyhow::Result<BenchReport> {
    let world = World::start()?;
    let versions = Versions::make(world.folder())?;
    let publisher = Publisher::with_keys_of(&world.operator)?;
    versions.publish(&publisher, 1)?;
    let who = KeyHolder::new(&world, "shop")?;
    let calls = Calls::default();
    let pss_kb = || world.cloud.process().context("no cloud")?.pss_kb();
    let (before, after) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let all = (0..CALLERS).map(|_| call(&who, &versions, &calls));
            runtime.block_on(futures_util::future::try_join_all(all))
        });
        let swap = || {
            let mut before = pss_kb()?;
            for swap in 1..=amount.warm_up + amount.swaps {
                versions.publish(&publisher, swap + 1)?;
                if swap == amount.warm_up {
                    before = pss_kb()?;
                }
            }
            anyhow::Ok((before, pss_kb()?))
        };
        let swapped = swap();
        calls.ended.store(true, Relaxed);
        asking.join().map_err(|_| anyhow::anyhow!("a caller panicked"))??;
        swapped
    })?;
    let loaded = || publisher.stats().ok()?["cloud_variants_loaded"].as_u64();
    let last_alone = || loaded().filter(|loaded| *loaded == 1).map(drop);
    eventually("the last version alone is loaded", Duration::from_secs(10), last_alone)?;
    ask_the_first(&world, &versions)?;
    let mb = |kb: u64| json!(rounded(kb as f64 * 1024.0 / 1e6));
    Ok(BenchReport {
        name: "swap",
        rows: vec![Row(vec![
            ("swaps", json!(amount.warm_up + amount.swaps)),
            ("answered", json!(calls.answered.load(Relaxed))),
            ("failed", json!(0)),
            ("pss_before_mb", mb(before)),
            ("pss_after_mb", mb(after)),
        ])],
        goals: vec![Goal::at_most("PSS after over PSS before", 1.1, after as f64 / before as f64)],
    })
}
