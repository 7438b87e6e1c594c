//! What Prometheus reads, and a collector is told: what became of requests, how long their parts took, and
//! how things stand.
//!
//! It is served at `/metrics` on the HTTPS port for keys that may view, since nothing answers there
//! without one; and, where `[metrics] listen` says so, without a key on a loopback address. Events are
//! counted in [`crate::events`] and requests in [`Observed`]; here they are only shown.

mod crowds;
mod listener;
mod models;
mod observed;

pub(crate) use listener::serve;
pub use observed::{Observed, Transport};

use fleet::admission::RefusalKind;
use fleet::repository::Newest;
use link::metrics::{Exposition, Kind, process};
use link::otlp::CollectorError;
use protocol::tuf::metadata::Lifetime;
use std::sync::Arc;

use crate::access_log::Counts as LogCounts;
use crate::deltas::Held;
use crate::state::{CONNECTIONS_MAX, Cloud, now_ns, now_s};
use crate::telemetry::Crowds;

/// What is not in memory.
#[derive(Default)]
struct Kept {
    repository: Newest,
    crowds: Crowds,
}

/// All metrics now.
fn gather(cloud: &Cloud, kept: &Kept) -> Exposition {
    let mut out = Exposition::default();
    standing(cloud, &mut out);
    expiry(&kept.repository, &mut out);
    crowds::render(&kept.crowds, &mut out);
    load(cloud, &mut out);
    models::render(cloud, &mut out);
    door(cloud, &mut out);
    cloud.observed.render(&mut out);
    events(cloud, &mut out);
    cloud.otlp.render(&mut out, "outrigger_cloud");
    process(&mut out);
    out
}

fn standing(cloud: &Cloud, out: &mut Exposition) {
    let help = "The version of this program.";
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    out.family("outrigger_cloud_info", help, Kind::Gauge).sample(&version, 1);
    let help = "Whether new requests should come here.";
    out.family("outrigger_cloud_ready", help, Kind::Gauge)
        .sample(&[], u8::from(cloud.unready().is_empty()));
    let help = "Whether each reason for not being ready holds.";
    let mut family = out.family("outrigger_cloud_unready", help, Kind::Gauge);
    let unready = cloud.unready();
    for reason in crate::state::Unready::ALL {
        let holds = unready.contains(&reason);
        family.sample(&[("reason", reason.as_str())], u8::from(holds));
    }
}

/// How long the files of the repository are good; nothing where there is none.
fn expiry(repository: &Newest, out: &mut Exposition) {
    let help = "Seconds until each role's file of the repository ends; negative when it has ended.";
    let mut family = out.family("outrigger_cloud_repository_expiry_seconds", help, Kind::Gauge);
    for (role, bytes) in repository {
        if let Some(held) = Lifetime::of(role, bytes) {
            family.sample(&[("role", role)], held.expires_s.saturating_sub(now_s()));
        }
    }
}

fn load(cloud: &Cloud, out: &mut Exposition) {
    let help = "Devices that are connected.";
    out.family("outrigger_cloud_devices_connected", help, Kind::Gauge)
        .sample(&[], cloud.online.len());
    let help = "Connections that are open.";
    let mut family = out.family("outrigger_cloud_connections", help, Kind::Gauge);
    let agents = CONNECTIONS_MAX - cloud.limits.connections.available_permits();
    let tcp = cloud.over_tcp.len();
    family.sample(&[("transport", "quic")], agents.saturating_sub(tcp));
    family.sample(&[("transport", "tcp")], tcp);
    let https = CONNECTIONS_MAX - cloud.limits.https_connections.available_permits();
    family.sample(&[("transport", "https")], https);
    let help = "Inference requests that are not answered yet.";
    out.family("outrigger_cloud_requests_in_flight", help, Kind::Gauge)
        .sample(&[], cloud.in_flight.count());
    let help = "Keys that can be used.";
    out.family("outrigger_cloud_keys_live", help, Kind::Gauge)
        .sample(&[], cloud.access.live_keys());
}

/// What the gate let in, and what became of runs.
fn door(cloud: &Cloud, out: &mut Exposition) {
    let door = cloud.serving.door();
    let counts = door.counts();
    let help = "Requests that the gate let in.";
    out.family("outrigger_cloud_admitted_total", help, Kind::Counter).sample(&[], counts.admitted);
    let help = "Requests that the gate refused.";
    let mut family = out.family("outrigger_cloud_admission_refusals_total", help, Kind::Counter);
    for kind in RefusalKind::ALL {
        family.sample(&[("reason", kind.as_str())], counts.refused(kind));
    }
    let help = "Requests that were let in and dropped before a run.";
    let mut family = out.family("outrigger_cloud_dropped_total", help, Kind::Counter);
    for (reason, count) in door.drops() {
        family.sample(&[("reason", reason.as_str())], count);
    }
    let help = "Requests that wait for a session.";
    out.family("outrigger_cloud_requests_waiting", help, Kind::Gauge)
        .sample(&[], cloud.serving.waiting());
    let help = "Requests that shared one run.";
    let mut family = out.family("outrigger_cloud_batch_requests", help, Kind::Histogram);
    door.requests_per_run().render(&mut family, &[]);
}

fn events(cloud: &Cloud, out: &mut Exposition) {
    for (name, help, count) in cloud.events.described() {
        out.family(&format!("outrigger_cloud_{name}_total"), help.trim(), Kind::Counter)
            .sample(&[], count);
    }
    let Held { count, bytes } = cloud.deltas.held();
    let help = "Deltas that are here.";
    out.family("outrigger_cloud_deltas", help, Kind::Gauge).sample(&[], count);
    let help = "What they take on the disk.";
    out.family("outrigger_cloud_deltas_bytes", help, Kind::Gauge).sample(&[], bytes);
    let LogCounts { written, dropped } = cloud.access_log.counts();
    let help = "Lines of the access log, by what became of them.";
    let mut family = out.family("outrigger_cloud_access_log_lines_total", help, Kind::Counter);
    family.sample(&[("result", "written")], written);
    family.sample(&[("result", "dropped")], dropped);
}

/// What the databases say; blocks. What cannot be read is empty.
fn look(cloud: &Cloud) -> Kept {
    let repository = cloud.db.store().repository().unwrap_or_else(|error| {
        cloud.events.internal_error(&error);
        Newest::new()
    });
    let crowds = cloud.telemetry.store().crowds().unwrap_or_else(|error| {
        cloud.events.internal_error(&error);
        Crowds::default()
    });
    Kept { repository, crowds }
}

/// Metrics with their media type, as an answer.
pub(crate) async fn response(cloud: &Arc<Cloud>) -> axum::response::Response {
    use axum::response::IntoResponse;
    let looking = cloud.clone();
    let kept = tokio::task::spawn_blocking(move || look(&looking)).await.unwrap_or_default();
    let kind = [(axum::http::header::CONTENT_TYPE, link::metrics::MEDIA_TYPE)];
    (kind, gather(cloud, &kept).finish()).into_response()
}

/// Lines of the log and figures, for the collector if there is one.
pub(crate) fn tell_collector(cloud: &Arc<Cloud>) -> Result<(), CollectorError> {
    cloud.otlp.tell_logs(now_ns)?;
    let told = Arc::downgrade(cloud);
    let gather = move || told.upgrade().map(|cloud| gather(&cloud, &look(&cloud)));
    cloud.otlp.tell_metrics(gather, now_ns)
}
