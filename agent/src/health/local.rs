//! The agent itself: whether it runs, answers, and has its link; or could be started.

use super::{Check, Finding, Group, Subject};
use crate::commands::status::ask;
use crate::program::ProgramStatus;
use crate::serve::StatusReport;
use std::net::{SocketAddr, TcpListener};

pub(super) fn checks(subject: &Subject, reaches_cloud: bool) -> Vec<Check> {
    let report = ask(&subject.state_dir);
    let report = report.as_ref();
    let down = || Finding::skipped("the agent does not run");
    let port = report.map_or_else(
        || port_free(subject.config.local.http),
        |_| Finding::skipped("the agent has it"),
    );
    [
        ("agent-running", running(subject, report)),
        ("program", report.map_or_else(down, |r| program(&r.program))),
        ("local-api", report.map_or_else(down, |_| ready(subject))),
        ("local-port", port),
        ("cloud-link", report.map_or_else(down, |r| link(r.connected, &r.carrier, reaches_cloud))),
        ("breaker", report.map_or_else(down, |r| breaker(r.breaker_open))),
        ("installations", report.map_or_else(down, installations)),
        ("refusals", report.map_or_else(down, refusals)),
    ]
    .map(|(name, finding)| Group::Agent.check(name, finding))
    .into()
}

fn running(subject: &Subject, report: Option<&StatusReport>) -> Finding {
    match report {
        Some(report) => Finding::ok(format!("version {}", report.agent_version)),
        None if subject.enrolment.is_none() => super::needs_enrolment(),
        None => Finding::warning("it does not run, or not with this state folder").hint(format!(
            "start it: outrigger-agent run --state-dir {}",
            subject.state_dir.display()
        )),
    }
}

/// Which of the agent's programs runs, and whether one gave way.
fn program(program: &ProgramStatus) -> Finding {
    let ProgramStatus { is_installed, wanted, phase, reason, .. } = program;
    let from = if *is_installed { "the installed one" } else { "one from the cloud" };
    if !reason.is_empty() {
        let what = [wanted, phase, reason].map(String::as_str).join(" ");
        return Finding::warning(format!("{from}; {}", what.trim()))
            .hint("the operator sees it too: outrigger agent status");
    }
    match &**phase {
        "settled" => Finding::ok(from),
        phase => Finding::ok(format!("{from}; {wanted} {phase}")),
    }
}

/// Whether the Open Inference Protocol says that it is ready.
fn ready(subject: &Subject) -> Finding {
    let file = subject.state_dir.join(crate::commands::run::ADDRESS_FILE);
    let addresses = std::fs::read_to_string(file).unwrap_or_default();
    let address = addresses.lines().next().unwrap_or_default(); // HTTP comes first
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(std::time::Duration::from_secs(5)))
        .http_status_as_error(false);
    let agent: ureq::Agent = config.build().into();
    match agent.get(format!("{address}/v2/health/ready")).call() {
        Ok(answer) if answer.status().is_success() => Finding::ok(format!("ready at {address}")),
        Ok(answer) if answer.status().as_u16() == 401 => {
            Finding::ok(format!("answers known applications at {address}"))
        }
        Ok(_) => Finding::warning("live but not ready: no model is active")
            .hint("outrigger-agent status tells which model is on its way, and why not"),
        Err(error) => {
            Finding::failed(error.to_string()).hint("restart the agent; its log tells more")
        }
    }
}

fn port_free(address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(format!("{address} is free")),
        Err(error) => Finding::failed(format!("{address}: {error}"))
            .hint("end what listens there (ss -ltnp shows it), or set [local] http in agent.toml"),
    }
}

/// A link that is down while the cloud can be reached is the agent's own trouble.
fn link(connected: bool, carrier: &str, reaches_cloud: bool) -> Finding {
    match (connected, reaches_cloud) {
        (true, _) if carrier == "tcp" => Finding::ok("connected over TCP"),
        (true, _) => Finding::ok("connected"),
        (false, false) => Finding::warning("not connected")
            .hint("see cloud-udp and cloud-tcp; models here go on answering, deferrals do not"),
        (false, true) => Finding::failed("not connected although the cloud can be reached")
            .hint("wait for [link] reconnect_max_s; if it stays: does the cloud deny this device? The agent's log tells"),
    }
}

fn breaker(open: bool) -> Finding {
    if open {
        return Finding::warning("open: the cloud failed several times in a row").hint(
            "it closes by itself once a deferral succeeds; if not, is the cloud overloaded?",
        );
    }
    Finding::ok("closed")
}

fn installations(report: &StatusReport) -> Finding {
    let failed = report.models.iter().filter(|m| !m.reason.is_empty());
    let texts: Vec<_> = failed.map(|m| format!("{}: {}", m.name, m.reason)).collect();
    if texts.is_empty() {
        return Finding::ok("none is held up");
    }
    Finding::warning(texts.join("; "))
        .hint("what was active goes on answering; the reason says what to mend")
}

fn refusals(report: &StatusReport) -> Finding {
    let count = |name: &str| report.counters["refusals"][name].as_u64().unwrap_or(0);
    let names = ["overloaded", "deadline_exceeded", "failed"];
    let text = names.map(|name| format!("{} {name}", count(name))).join(", ");
    if names.iter().all(|name| count(name) == 0) {
        return Finding::ok("none since the start");
    }
    Finding::warning(format!("{text}, since the start"))
        .hint("fewer requests at once, longer deadlines, or more [runtime] sessions; the log names failures")
}

#[cfg(test)]
mod tests {
    use super::super::Outcome::{Failed, Ok as Fine, Warning};
    use super::*;

    #[test]
    fn a_link_is_judged_by_what_the_network_allows() {
        let cases = [(true, true), (true, false), (false, false), (false, true)];
        let outcomes = cases.map(|(connected, reaches)| link(connected, "quic", reaches).outcome);
        assert_eq!(outcomes, [Fine, Fine, Warning, Failed]);
    }

    #[test]
    fn a_port_in_use_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(port_free(address).outcome, Failed);
        drop(listener);
        assert_eq!(port_free("127.0.0.1:0".parse().unwrap()).outcome, Fine);
    }
}
