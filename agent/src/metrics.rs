//! What Prometheus reads at `/metrics`, and a collector is told: the counters, how long answers took, and how
//! things stand.
//!
//! It is gathered by hand: a fixed set of families, whose only open label is the name of a model that is or
//! was active here, needs no registry.

mod latencies;

pub(crate) use latencies::Latencies;
pub(crate) use link::metrics::MEDIA_TYPE;

use crate::serve::{Context, StatusReport};
use link::metrics::{Exposition, Kind, process};
use models::providers::Agreement;
use serde_json::Value;

/// All metrics now, as Prometheus reads them.
pub(crate) fn render(context: &Context) -> String {
    gather(context).finish()
}

/// All metrics now.
pub(crate) fn gather(context: &Context) -> Exposition {
    let mut out = Exposition::default();
    let report = context.report();
    counters(&mut out, &report.counters);
    gauges(&mut out, &report);
    memory(&mut out, &report);
    checks(&mut out, &report);
    context.otlp.render(&mut out, "outrigger");
    if let Some(end_s) = context.certificate_end_s() {
        let left = end_s.saturating_sub(context.clock.now_s());
        let help = "Seconds until this device's certificate ends; negative when it has ended.";
        out.family("outrigger_certificate_expiry_seconds", help, Kind::Gauge).sample(&[], left);
    }
    let help = "Seconds until each role's file of the repository that this device has ends.";
    let mut family = out.family("outrigger_repository_expiry_seconds", help, Kind::Gauge);
    for (role, held) in &report.repository {
        family.sample(&[("role", role)], held.expires_s.saturating_sub(context.clock.now_s()));
    }
    process(&mut out);
    context.counters.latencies().render(&mut out);
    out
}

/// Each group of counters is a family, but for those whose members are no alternatives.
fn counters(out: &mut Exposition, counters: &Value) {
    let labelled = [
        ("answers", "outrigger_answers_total", "placement", "Requests answered."),
        ("refusals", "outrigger_refusals_total", "reason", "Requests refused or failed."),
        ("installs", "outrigger_installs_total", "result", "Installations of model versions."),
        ("memory", "outrigger_memory_events_total", "event", "Models that make room for others."),
        ("sequences", "outrigger_sequences_total", "event", "Streams with state."),
        ("trials", "outrigger_trials_total", "result", "Models tried in a confined process."),
        ("updates", "outrigger_updates_total", "event", "New versions beside and after the old."),
        ("programs", "outrigger_programs_total", "event", "New programs of the agent itself."),
        ("checks", "outrigger_checks_total", "result", "Accepted answers beside the cloud's."),
        (
            "measurements",
            "outrigger_measurements_total",
            "result",
            "Orders of a lab to time models.",
        ),
        ("questions", "outrigger_questions_total", "result", "Questions of an operator."),
    ];
    for (group, name, label, help) in labelled {
        let mut family = out.family(name, help, Kind::Counter);
        for (value, count) in counters[group].as_object().into_iter().flatten() {
            family.sample(&[(label, &value.replace('_', "-"))], count);
        }
    }
    for (name, count) in counters["clock"].as_object().into_iter().flatten() {
        let help = format!("What the cloud tells of the time: {}.", name.replace('_', " "));
        out.family(&format!("outrigger_clock_{name}_total"), &help, Kind::Counter)
            .sample(&[], count);
    }
    let groups = [
        ("link", "link", "The link to the cloud"),
        ("downloads", "download", "Files of bundles"),
        ("peers", "peers", "Chunks between devices of the site"),
        ("telemetry", "telemetry", "Records for the operator"),
    ];
    for (group, own, what) in groups {
        for (name, count) in counters[group].as_object().into_iter().flatten() {
            let help = format!("{what}: {}.", name.replace('_', " "));
            out.family(&format!("outrigger_{own}_{name}_total"), &help, Kind::Counter)
                .sample(&[], count);
        }
    }
}

fn gauges(out: &mut Exposition, report: &StatusReport) {
    let help = "The version of this program, what it was built for, and how far the next one is.";
    let program = &report.program;
    let from = if program.is_installed { "installed" } else { "cloud" };
    let labels = [
        ("version", report.agent_version.as_str()),
        ("target", &*program.target),
        ("from", from),
        ("next", &*program.wanted),
        ("phase", &*program.phase),
    ];
    out.family("outrigger_agent_info", help, Kind::Gauge).sample(&labels, 1);
    let help = "Whether the cloud is connected.";
    out.family("outrigger_connected", help, Kind::Gauge).sample(&[], u8::from(report.connected));
    let help = "What carries the connection to the cloud, and why that.";
    let mut family = out.family("outrigger_carrier", help, Kind::Gauge);
    if report.connected {
        let labels = [("carrier", &*report.carrier), ("reason", &*report.carrier_reason)];
        family.sample(&labels, 1);
    }
    let help = "Whether deferral is suspended after failures.";
    out.family("outrigger_breaker_open", help, Kind::Gauge)
        .sample(&[], u8::from(report.breaker_open));
    let help = "How full the day's budget for the cloud is, 0 to 1.";
    out.family("outrigger_budget_fill", help, Kind::Gauge).sample(&[], report.budget_fill);
    let help = "Whether the fleet CA told the time since the start.";
    out.family("outrigger_clock_verified", help, Kind::Gauge)
        .sample(&[], u8::from(report.clock.verified));
    if let Some(off_ms) = report.clock.system_off_ms {
        let help = "The system's clock minus the time that the fleet CA told.";
        out.family("outrigger_clock_offset_seconds", help, Kind::Gauge)
            .sample(&[], off_ms as f64 / 1000.0);
    }
    let help = "The version of each model that answers.";
    let mut family = out.family("outrigger_model_active_version", help, Kind::Gauge);
    for model in &report.models {
        if let Some(version) = model.active_version {
            family.sample(&[("model", &model.name)], version);
        }
    }
}

/// How accepted answers do, by model.
fn checks(out: &mut Exposition, report: &StatusReport) {
    let help = "The largest share of accepted answers that is wrong where the cloud's would be right, \
                as promised; absent where nothing is.";
    let mut family = out.family("outrigger_model_risk", help, Kind::Gauge);
    for model in &report.models {
        if let Some(risk) = model.risk {
            family.sample(&[("model", &model.name)], risk);
        }
    }
    let watched =
        || report.models.iter().filter_map(|model| Some((&model.name, model.checks.as_ref()?)));
    let help = "Alarms about accepted answers that differ from the cloud's too often.";
    let mut family = out.family("outrigger_model_alarms", help, Kind::Gauge);
    watched().for_each(|(model, checks)| family.sample(&[("model", model)], checks.alarms));
    let help = "Evidence that more of them differ than may, over what raises an alarm.";
    let mut family = out.family("outrigger_model_evidence_ratio", help, Kind::Gauge);
    for (model, checks) in watched() {
        family.sample(&[("model", model)], checks.evidence / checks.alarm_at);
    }
}

fn memory(out: &mut Exposition, report: &StatusReport) {
    let running = || {
        let models = report.models.iter();
        models.filter_map(|model| Some((model.name.as_str(), model.running.as_ref()?)))
    };
    let help = "The execution provider of each model, and how its answers compare with the CPU's.";
    let mut family = out.family("outrigger_model_provider_info", help, Kind::Gauge);
    for (model, running) in running() {
        let probes = match running.choice.probes {
            Agreement::Exact => "exact",
            Agreement::Within => "within",
        };
        let provider = running.choice.provider.as_str();
        family.sample(&[("model", model), ("provider", provider), ("probes", probes)], 1);
    }
    let help = "Whether each model is in memory.";
    let mut family = out.family("outrigger_model_resident", help, Kind::Gauge);
    for (model, running) in running() {
        family.sample(&[("model", model)], u8::from(running.memory == "resident"));
    }
    let help = "Memory that each model takes, or would take, as it was measured.";
    let mut family = out.family("outrigger_model_memory_bytes", help, Kind::Gauge);
    for (model, running) in running() {
        family.sample(&[("model", model)], running.memory_bytes);
    }
    let help = "Memory of all models that are in memory.";
    let taken = report.memory.models_bytes;
    out.family("outrigger_models_memory_bytes", help, Kind::Gauge).sample(&[], taken);
    if let Some(budget) = report.memory.budget_bytes {
        let help = "The most memory that all models may take together.";
        out.family("outrigger_models_memory_budget_bytes", help, Kind::Gauge).sample(&[], budget);
    }
}
