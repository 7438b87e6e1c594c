//! How long a device that is shut out keeps its connection: from before the operator's call until the device
//! has heard of it, over both carriers, to the control node and to an inference node.

use super::{BenchReport, Goal, Row, rounded};
use crate::callers::Device;
use crate::fashion::IMAGE_BYTES;
use crate::statistics::percentile_ms;
use crate::world::{Agent, Api, Node, World};
use anyhow::Context;
use link::connection::Ended;
use protocol::carrier::Wanted;
use protocol::id::{DeviceId, NodeId, Version};
use protocol::infer::{InferRequest, PlacementHint};
use protocol::problem::ProblemCode;
use protocol::tensor::{DataType, Tensor, TensorMeta};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Of the longest.
const GOAL_S: f64 = 2.0;
/// What is certainly no revocation any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures.
///
/// # Errors
/// A device that is not shut out, or programs that do not start.
pub fn run(short: bool) -> anyhow::Result<BenchReport> {
    let rounds = if short { 5 } else { 50 };
    let world = World::start()?;
    world.ship_fashion()?;
    let node = Node::join(&world, "node")?;
    node.wait_state(&world.operator, "ready")?;
    let id = node.entry(&world.operator)?["id"].as_str().context("no id")?.to_owned();
    let name = id.parse::<NodeId>()?.server_name();
    let (mut rows, mut worst) = (Vec::new(), Duration::ZERO);
    let subject = Subject::new(&world)?;
    for (carrier, wanted) in [("QUIC", Wanted::Quic), ("TCP", Wanted::Tcp)] {
        for (at, address, name) in [
            ("the control node", world.cloud.address(), "localhost"),
            ("an inference node", node.address().to_owned(), &*name),
        ] {
            let to = To { wanted, address: &address, name };
            let took = (0..rounds).map(|_| subject.shut_out(&to)).collect::<Result<Vec<_>, _>>()?;
            worst = worst.max(took.iter().copied().max().unwrap_or_default());
            rows.push(Row(vec![
                ("connected_to", json!(at)),
                ("over", json!(carrier)),
                ("rounds", json!(rounds)),
                ("closed_p50_ms", json!(rounded(percentile_ms(&took, 50.0)))),
                ("closed_max_ms", json!(rounded(percentile_ms(&took, 100.0)))),
            ]));
        }
    }
    let goals = vec![Goal::at_most("longest, s", GOAL_S, worst.as_secs_f64())];
    Ok(BenchReport { name: "revocation", rows, goals })
}

/// Where a connection leads.
struct To<'a> {
    wanted: Wanted,
    address: &'a str,
    name: &'a str,
}

/// A device, and the operator who shuts it out.
struct Subject<'a> {
    runtime: Runtime,
    folder: std::path::PathBuf,
    denied: String,
    api: Api,
    request: InferRequest,
    world: &'a World,
}

impl<'a> Subject<'a> {
    fn new(world: &'a World) -> anyhow::Result<Self> {
        let folder = world.folder().join("device");
        Agent::enrol(&folder, &world.cloud.address(), &world.token()?)?;
        let device = device_of(&folder)?;
        Ok(Self {
            runtime: Runtime::new()?,
            folder,
            denied: format!("/v1/devices/{device}/denied"),
            api: Api::with_key_of(&world.operator)?,
            request: request()?,
            world,
        })
    }

    fn deny(&self, denied: bool) -> anyhow::Result<()> {
        let body = json!({ "denied": denied }).to_string();
        self.api.accepted("PUT", &self.denied, body.as_bytes())?;
        Ok(())
    }

    /// Connects, and is shut out; how long it took to hear of that.
    fn shut_out(&self, to: &To<'_>) -> anyhow::Result<Duration> {
        let device = self.connect(to)?;
        let connection = device.connection().clone();
        let closed = self.runtime.spawn(async move {
            let ended = tokio::time::timeout(PATIENCE, connection.closed()).await;
            (ended, Instant::now())
        });
        let began = Instant::now();
        self.deny(true)?;
        let (ended, at) = self.runtime.block_on(closed)?;
        self.deny(false)?;
        match ended.context("the connection stays open")? {
            Ended::ByPeer { code: ProblemCode::Unauthorised, .. } => Ok(at - began),
            other => anyhow::bail!("the connection ended otherwise: {other}"),
        }
    }

    /// A connection that is served: the word that the device is allowed again may still be on its way.
    fn connect(&self, to: &To<'_>) -> anyhow::Result<Device> {
        let end = Instant::now() + PATIENCE;
        loop {
            let connect = Device::connect_to(to.wanted, &self.folder, to.address, to.name);
            let device = self.runtime.block_on(connect)?;
            let asked = device.ask(&self.request, Version::FIRST, 20_000);
            if self.runtime.block_on(asked).is_ok_and(|said| said.is_ok()) {
                return Ok(device);
            }
            anyhow::ensure!(Instant::now() < end, "never served at {}", self.world.cloud.address());
        }
    }
}

/// About an image, as the demo's cloud variant takes it.
fn request() -> anyhow::Result<InferRequest> {
    let meta = TensorMeta::new("image", DataType::Uint8, vec![1, 28, 28])?;
    let image = Tensor::new(meta, vec![0; IMAGE_BYTES].into())?;
    Ok(InferRequest {
        model: "fashion".parse()?,
        version: None,
        id: "1".into(),
        inputs: vec![image],
        outputs: vec![],
        deadline_ms: None,
        priority: 0,
        hint: PlacementHint::Cloud,
        sequence: None,
    })
}

/// The name in the certificate of an enrolled device.
pub(super) fn device_of(folder: &Path) -> anyhow::Result<DeviceId> {
    let chain = link::pki::chain_from_pem(&std::fs::read(folder.join("device.pem"))?)?;
    let leaf = chain.first().context("an empty chain")?;
    Ok(link::pki::DeviceCertificate::parse(leaf)?.device)
}
