//! Lines of this process's log, taken where they arise. The log is one for the process, and so is the tap;
//! until it is open, a line costs a look at it. What the threads say that speak to the collector is left out:
//! a failed export would be told in the next one, for ever.

use protocol::otlp::{Log, Severity, Value};
use std::cell::Cell;
use std::fmt::Debug;
use std::sync::{Arc, OnceLock};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::queue::Queue;

static TAP: OnceLock<Tap> = OnceLock::new();

thread_local! {
    static LEFT_OUT: Cell<bool> = const { Cell::new(false) };
}

struct Tap {
    queue: Arc<Queue<Log>>,
    unix_ns: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// A layer of the process's log that hands lines to the collector, once there is one.
#[derive(Debug, Clone, Copy)]
pub struct LogLayer(());

/// The layer.
pub fn log_layer() -> LogLayer {
    LogLayer(())
}

/// Opens the tap; the first who does so has it.
pub(super) fn tap(queue: Arc<Queue<Log>>, unix_ns: impl Fn() -> u64 + Send + Sync + 'static) {
    let _ = TAP.set(Tap { queue, unix_ns: Box::new(unix_ns) });
}

/// Nothing that this thread says is told.
pub(super) fn leave_out_this_thread() {
    LEFT_OUT.set(true);
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(tap) = TAP.get().filter(|_| !LEFT_OUT.get()) else { return };
        let metadata = event.metadata();
        let mut log = Log::new((tap.unix_ns)(), severity(*metadata.level()));
        log.set("target", metadata.target().to_owned().into());
        event.record(&mut Fields(&mut log));
        tap.queue.put(log);
    }
}

fn severity(level: Level) -> Severity {
    match level {
        Level::TRACE => Severity::Trace,
        Level::DEBUG => Severity::Debug,
        Level::INFO => Severity::Info,
        Level::WARN => Severity::Warn,
        Level::ERROR => Severity::Error,
    }
}

struct Fields<'l>(&'l mut Log);

impl Fields<'_> {
    fn text(&mut self, field: &Field, text: String) {
        match field.name() {
            "message" => self.0.set_text(&text),
            name => self.0.set(name, text.into()),
        }
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, protocol::problem::chain(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.set(field.name(), Value::Whole(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.set(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.set(field.name(), Value::Real(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.set(field.name(), Value::Truth(value));
    }
}
