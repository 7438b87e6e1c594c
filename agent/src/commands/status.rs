//! `outrigger-agent status`: what this device runs and how it is doing.

use super::{StateDir, hinted};
use crate::identity::IdentityFiles;
use crate::serve::{ModelStatus, StatusReport};
use comfy_table::{Table, presets};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
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
    let socket = addresses.lines().find_map(|line| line.strip_prefix(super::run::SOCKET_SCHEME));
    let answer = socket.and_then(|path| ask_socket(Path::new(path)).ok());
    answer.or_else(|| ask_http(addresses.lines().next()?))
}

fn ask_http(address: &str) -> Option<StatusReport> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
    agent.get(format!("{address}{STATUS_PATH}")).call().ok()?.body_mut().read_json().ok()
}

/// HTTP/1.0 ends an answer by closing, so that there is nothing to parse but one empty line.
fn ask_socket(path: &Path) -> std::io::Result<StatusReport> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {STATUS_PATH} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(serde_json::from_str(body)?)
}

fn print(report: &StatusReport) {
    let link = match (report.connected, report.breaker_open) {
        (false, _) => "not connected",
        (true, true) => "connected, deferral suspended after failures",
        (true, false) => "connected",
    };
    println!("{} (agent {})", report.device, report.agent_version);
    println!("cloud {}: {link}", report.cloud);
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
    table.set_header(["model", "active", "threshold", "phase", "target", "reason"]);
    for model in &report.models {
        table.add_row(row(model));
    }
    println!("{table}");
    print_counters(&report.counters);
}

fn row(model: &ModelStatus) -> [String; 6] {
    let number = |n: Option<u64>| n.map_or("-".to_owned(), |n| n.to_string());
    [
        model.name.clone(),
        number(model.active_version),
        model.threshold.map_or("-".into(), |t| format!("{t:.3}")),
        model.phase.clone(),
        number(model.target_version),
        model.reason.clone(),
    ]
}

fn print_counters(counters: &serde_json::Value) {
    for (group, values) in counters.as_object().into_iter().flatten() {
        let values = values.as_object().into_iter().flatten();
        let texts: Vec<_> = values.map(|(name, n)| format!("{name} {n}")).collect();
        println!("{group:9} {}", texts.join(", "));
    }
}
