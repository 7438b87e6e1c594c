//! `outrigger-agent status`: what this device runs and how it is doing.

mod providers;

use super::{StateDir, hinted, local};
use crate::engine::Running;
use crate::identity::IdentityFiles;
use crate::program::ProgramStatus;
use crate::serve::{ModelStatus, NodeStatus, StatusReport};
use crate::uplink::CONTROL;
use comfy_table::{Table, presets};
use models::probing::Batching;
use protocol::tuf::date;
use protocol::tuf::metadata::Lifetime;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `status`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    state_dir: StateDir,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// The agent is enrolled but does not run.
const NOT_RUNNING: u8 = 3;

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let state_dir = args.state_dir.path();
    let enrolment = IdentityFiles::new(&state_dir).enrolment()?.ok_or_else(|| {
        hinted(
            "this device is not enrolled",
            "outrigger-agent enrol --cloud HOST:PORT --token-file FILE",
        )
    })?;
    let Some(report) = ask(&state_dir) else {
        if args.json {
            println!(
                "{}",
                serde_json::json!({ "device": enrolment.device, "cloud": enrolment.cloud, "running": false })
            );
        } else {
            println!("{} (fleet at {}): not running", enrolment.device, enrolment.cloud);
        }
        eprintln!("hint: outrigger-agent run --state-dir {}", state_dir.display());
        return Ok(ExitCode::from(NOT_RUNNING));
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(ExitCode::SUCCESS)
}

const STATUS_PATH: &str = "/outrigger/status";
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the running agent; `None` when none answers. The Unix socket needs no token, so it comes
/// first; whoever may not open it asks over TCP.
pub(crate) fn ask(state_dir: &Path) -> Option<StatusReport> {
    let addresses = std::fs::read_to_string(state_dir.join(super::run::ADDRESS_FILE)).ok()?;
    let answer = local::socket(state_dir).and_then(|path| ask_socket(&path).ok());
    answer.or_else(|| ask_http(addresses.lines().next()?))
}

fn ask_http(address: &str) -> Option<StatusReport> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
    agent.get(format!("{address}{STATUS_PATH}")).call().ok()?.body_mut().read_json().ok()
}

fn ask_socket(path: &Path) -> std::io::Result<StatusReport> {
    Ok(serde_json::from_str(&local::call(path, "GET", STATUS_PATH, PATIENCE)?.body)?)
}

fn print(report: &StatusReport) {
    let link = match (report.connected, report.breaker_open) {
        (false, _) => "not connected",
        (true, true) => "connected, deferral suspended after failures",
        (true, false) => "connected",
    };
    println!("{} (agent {}{})", report.device, report.agent_version, program(&report.program));
    if !report.program.reason.is_empty() {
        let ProgramStatus { wanted, phase, reason, .. } = &report.program;
        println!(
            "agent's program: {}",
            [wanted, phase, reason].map(String::as_str).join(" ").trim()
        );
    }
    println!("cloud {}: {link}{}", report.cloud, over(&report.carrier, &report.carrier_reason));
    if report.nodes.iter().any(|node| node.node != CONTROL) {
        let over = |node: &NodeStatus| node.carrier.as_deref().map_or("", |c| by(c));
        let nodes: Vec<_> =
            report.nodes.iter().map(|n| format!("{} {}{}", n.node, n.state, over(n))).collect();
        println!("nodes: {}", nodes.join(", "));
    }
    if !report.peers.is_empty() {
        let left = report.peers.iter().filter(|peer| peer.left_alone.is_some()).count();
        println!("peers: {} at this site, {left} of them left alone for now", report.peers.len());
    }
    if !report.repository.is_empty() {
        let until = |(role, held): (&String, &Lifetime)| {
            format!("{role} {} until {}", held.version, date::format(held.expires_s))
        };
        let roles: Vec<_> = report.repository.iter().map(until).collect();
        println!("repository: {}", roles.join(", "));
    }
    println!("clock: {}\n", report.clock.text);
    if report.models.is_empty() {
        println!(
            "no models yet; an operator assigns them with: outrigger model assign NAME --device {}",
            report.device
        );
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "model",
        "active",
        "threshold",
        "risk",
        "phase",
        "target",
        "runs on",
        "memory",
        "reason",
    ]);
    for model in &report.models {
        table.add_row(row(model));
    }
    println!("{table}");
    for line in providers::not_used(&report.models) {
        println!("not used  {line}");
    }
    for (name, batching) in report.models.iter().filter_map(dependent) {
        let worst = batching.worst_difference;
        println!("{name}: neighbours in a batch change its answers (by up to {worst:.2e})");
    }
    print_counters(&report.counters);
}

/// A program that is not the installed one, and how far it has come.
fn program(program: &ProgramStatus) -> String {
    match (program.is_installed, &*program.phase) {
        (true, _) => String::new(),
        (false, "settled") => ", from the cloud".to_owned(),
        (false, phase) => format!(", from the cloud, {phase}"),
    }
}

/// A carrier that is not the usual one.
fn by(carrier: &str) -> &'static str {
    if carrier == "tcp" { " over TCP" } else { "" }
}

/// The same, and why.
fn over(carrier: &str, reason: &str) -> String {
    match (by(carrier), reason) {
        ("", _) => String::new(),
        (over, "udp_silent") => format!("{over}, for nothing answers over UDP"),
        (over, _) => format!("{over}, as configured"),
    }
}

/// A model whose answers depend on who else is in the batch.
fn dependent(model: &ModelStatus) -> Option<(&str, &Batching)> {
    let batching = model.proof.as_ref()?.batching.as_ref()?;
    (!batching.invariant).then_some((&model.name, batching))
}

fn row(model: &ModelStatus) -> [String; 9] {
    let running = model.running.as_ref();
    let number = |n: Option<u64>| n.map_or("-".to_owned(), |n| n.to_string());
    [
        model.name.clone(),
        number(model.active_version),
        model.threshold.map_or("-".into(), |t| format!("{t:.3}")),
        risk(model),
        model.phase.clone(),
        number(model.target_version),
        running.map_or("-".into(), |r| r.choice.provider.to_string()),
        running.map_or("-".into(), memory),
        model.reason.clone(),
    ]
}

/// What is promised of its accepted answers.
fn risk(model: &ModelStatus) -> String {
    match (model.threshold, model.risk) {
        (None, _) => "-".to_owned(),
        (Some(_), None) => "unverified".to_owned(),
        (Some(_), Some(risk)) => format!("{} %", (risk * 1e6).round() / 1e4),
    }
}

/// In memory, or what it would take there.
fn memory(running: &Running) -> String {
    let tenths = running.memory_bytes / 100_000;
    let size = format!("{}.{} MB", tenths / 10, tenths % 10);
    if running.memory == "resident" { size } else { format!("{size} ({})", running.memory) }
}

fn print_counters(counters: &serde_json::Value) {
    for (group, values) in counters.as_object().into_iter().flatten() {
        let values = values.as_object().into_iter().flatten();
        let texts: Vec<_> = values.map(|(name, n)| format!("{name} {n}")).collect();
        println!("{group:9} {}", texts.join(", "));
    }
}
