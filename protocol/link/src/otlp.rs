//! What this program tells a collector that speaks OTLP, over HTTP or gRPC: spans ([`crate::traces`]), lines
//! of the log, and figures.
//!
//! What waits how long is decided in `protocol::otlp`; here are its clock, its entropy, its threads and its
//! connections: one of each for each signal, so that none holds up another. Whoever has something to tell
//! hands it over and goes on: where there is no room it is thrown away, which is counted. Figures are sums,
//! and read when they are sent: of those nothing waits.

mod collector;
mod grpc;
mod headers;
mod http;
mod logs;
mod queue;
mod reports;
mod settings;

pub use collector::CollectorError;
pub use logs::{LogLayer, log_layer};
pub use settings::{Objection, OtlpSettings, Protocol};

use crate::metrics::{Exposition, Kind};
use crate::traces::Traces;
use collector::Collector;
use protocol::otlp::{Log, OutboxPolicy, Resource, Signal, Value};
use protocol::trace::{Sampling, Span};
pub(crate) use queue::Queue;
use reports::Reports;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Lines of the log that wait or are under way; one more is thrown away.
pub const LOGS_MAX: usize = 1024;

/// The way to the collector. Clones share it; off, which is the default, nothing is told.
#[derive(Debug, Clone, Default)]
pub struct Otlp(Option<Arc<Outlet>>);

#[derive(Debug)]
struct Outlet {
    settings: OtlpSettings,
    service: Service,
    sampling: Sampling,
    spans: Arc<Queue<Span>>,
    logs: Arc<Queue<Log>>,
    reports: Arc<Reports>,
}

/// Which program speaks.
#[derive(Debug, Clone)]
pub struct Service {
    /// What it is.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Which one of them it is; nothing where there is but one.
    pub instance: Option<String>,
}

/// Spans, lines or figures by what became of them, and failed attempts to hand them over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// The collector took them.
    pub sent: u64,
    /// There was no room for them.
    pub no_room: u64,
    /// The collector was away for too long, or until the end.
    pub undelivered: u64,
    /// The collector would not take them.
    pub rejected: u64,
    /// Failed attempts.
    pub failures: u64,
}

impl Otlp {
    /// Starts a thread for spans, if there is a collector.
    ///
    /// # Errors
    /// [`CollectorError`]: a file that the settings name cannot be used, or there is no thread.
    pub fn start(settings: &OtlpSettings, service: Service) -> Result<Self, CollectorError> {
        if settings.endpoint.is_empty() {
            return Ok(Self(None));
        }
        let outlet = Arc::new(Outlet {
            sampling: Sampling::share(settings.sample),
            spans: Arc::new(Queue::new(Signal::Traces, OutboxPolicy::default())),
            logs: Arc::new(Queue::new(
                Signal::Logs,
                OutboxPolicy { items_max: LOGS_MAX, ..OutboxPolicy::default() },
            )),
            reports: Arc::new(Reports::new(settings.interval())),
            settings: settings.clone(),
            service,
        });
        let spans = outlet.spans.clone();
        outlet.spawn(Signal::Traces, move |collector, resource| {
            spans.deliver(&collector, |spans| resource.export_spans(spans));
        })?;
        Ok(Self(Some(outlet)))
    }

    /// From now on lines of this process's log are told too, where the settings want them; `unix_ns` says
    /// what time it is. The log itself is one for the process: the first to ask has it.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn tell_logs(
        &self,
        unix_ns: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<(), CollectorError> {
        let Some(outlet) = self.0.as_ref().filter(|outlet| outlet.settings.logs) else {
            return Ok(());
        };
        let logs = outlet.logs.clone();
        outlet.spawn(Signal::Logs, move |collector, resource| {
            logs.deliver(&collector, |logs| resource.export_logs(logs));
        })?;
        logs::tap(outlet.logs.clone(), unix_ns);
        Ok(())
    }

    /// From now on figures are told too, where the settings want them: `gather` reads them, and says nothing
    /// once there are none any more.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn tell_metrics(
        &self,
        gather: impl Fn() -> Option<Exposition> + Send + 'static,
        unix_ns: impl Fn() -> u64 + Send + 'static,
    ) -> Result<(), CollectorError> {
        let Some(outlet) = self.0.as_ref().filter(|outlet| outlet.settings.interval_s > 0) else {
            return Ok(());
        };
        let reports = outlet.reports.clone();
        outlet.spawn(Signal::Metrics, move |collector, resource| {
            reports.deliver(&collector, &resource, gather, unix_ns);
        })
    }

    /// What records spans.
    pub fn traces(&self) -> Traces {
        match &self.0 {
            None => Traces::default(),
            Some(outlet) => Traces::new(outlet.sampling, outlet.spans.clone()),
        }
    }

    /// Hands over what waits, and waits for that, at most so long. Blocks.
    pub fn finish(&self, patience: Duration) {
        let Some(outlet) = &self.0 else { return };
        let end = Instant::now() + patience;
        outlet.reports.begin_finish();
        outlet.logs.begin_finish();
        outlet.spans.finish(end);
        outlet.logs.finish(end);
        outlet.reports.finish(end);
    }

    /// What became of a signal so far.
    pub fn counts(&self, signal: Signal) -> Counts {
        let counts = |outlet: &Arc<Outlet>| match signal {
            Signal::Traces => outlet.spans.counts(),
            Signal::Logs => outlet.logs.counts(),
            Signal::Metrics => outlet.reports.counts(),
        };
        self.0.as_ref().map(counts).unwrap_or_default()
    }

    /// The same as figures; `prefix` is what the program's families begin with.
    pub fn render(&self, out: &mut Exposition, prefix: &str) {
        let help = "Spans, data points and lines of the log, by what became of them on the way to the collector.";
        let mut family = out.family(&format!("{prefix}_otlp_items_total"), help, Kind::Counter);
        for signal in Signal::ALL {
            let Counts { sent, no_room, undelivered, rejected, .. } = self.counts(signal);
            let results = [
                ("sent", sent),
                ("no_room", no_room),
                ("undelivered", undelivered),
                ("rejected", rejected),
            ];
            for (result, count) in results {
                family.sample(&[("signal", signal.as_str()), ("result", result)], count);
            }
        }
        let help = "Failed attempts to hand something to the collector.";
        let name = format!("{prefix}_otlp_export_failures_total");
        let mut family = out.family(&name, help, Kind::Counter);
        for signal in Signal::ALL {
            family.sample(&[("signal", signal.as_str())], self.counts(signal).failures);
        }
    }
}

impl Outlet {
    fn spawn(
        &self,
        signal: Signal,
        work: impl FnOnce(Collector, Resource) + Send + 'static,
    ) -> Result<(), CollectorError> {
        let collector = Collector::new(&self.settings, &self.service, signal)?;
        let resource = resource(self.service.clone());
        let thread = std::thread::Builder::new().name(format!("otlp-{}", signal.as_str()));
        let work = move || {
            logs::leave_out_this_thread();
            work(collector, resource);
        };
        thread.spawn(work).map(drop).map_err(CollectorError::Thread)
    }
}

fn resource(service: Service) -> Resource {
    let Service { name, version, instance } = service;
    let mut attributes: Vec<(_, Value)> = vec![
        ("service.name", name.into()),
        ("service.version", version.into()),
        ("telemetry.sdk.language", "rust".into()),
        ("telemetry.sdk.name", "outrigger".into()),
        ("telemetry.sdk.version", version.into()),
        ("host.arch", architecture().into()),
        ("os.type", system().into()),
    ];
    attributes.extend(instance.map(|instance| ("service.instance.id", instance.into())));
    attributes.extend(crate::system::host_name().map(|host| ("host.name", host.into())));
    Resource { attributes, version }
}

/// By OpenTelemetry's names.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "arm32",
        other => other,
    }
}

fn system() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    }
}

#[cfg(test)]
mod tests;
