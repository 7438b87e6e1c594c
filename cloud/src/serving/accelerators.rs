//! On what models run: the CPU, or an accelerator that has proven itself with the very model.

use std::time::Duration;

use models::backend::{Backend, SessionOptions};
use models::bundle::Bundle;
use models::providers::{self, Choice, ChooseError, Order, Processor, Provider};

/// Which accelerators models are tried on, and on which devices they then run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accelerators {
    /// The execution providers, first choice first; the CPU comes after all of them.
    pub order: Order,
    /// The GPUs whose sessions share the work, by their numbers in the driver's order.
    pub gpus: Vec<u32>,
}

impl Accelerators {
    /// Finds out who computes this model. Blocks; loads the model once for the CPU and once for each
    /// provider that is there.
    ///
    /// # Errors
    /// The model does not even work on the CPU.
    pub(super) fn choose(
        &self,
        backend: &dyn Backend,
        bundle: &Bundle,
        options: &SessionOptions,
    ) -> Result<Choice, ChooseError> {
        let device = self.gpus.first().copied().unwrap_or(0);
        let options = SessionOptions { device, ..options.clone() };
        let order = self.order.providers();
        let choice = providers::choose(backend, bundle, &options, order, &|_| Ok(()))?;
        say(bundle, &choice);
        Ok(choice)
    }

    /// The devices that a model has whose nodes this provider computes.
    pub(super) fn devices(&self, provider: Provider) -> &[u32] {
        match provider.processor() {
            Processor::Gpu if !self.gpus.is_empty() => &self.gpus,
            _ => &[0],
        }
    }
}

fn say(bundle: &Bundle, choice: &Choice) {
    let (model, provider) = (&bundle.manifest().model, choice.provider);
    for passed in &choice.passed_over {
        tracing::debug!(%model, provider = %passed.provider, reason = %passed.reason, "passed over");
    }
    if let (Some(nodes), Some(timing)) = (choice.nodes, choice.timing) {
        let ms = |us| format!("{:.1?}", Duration::from_micros(us));
        let (own, cpu) = (ms(timing.provider_us), ms(timing.cpu_us));
        let nodes = format!("{} of {}", nodes.taken, nodes.all);
        tracing::info!(%model, %provider, nodes, took = own, on_cpu = cpu, "accelerated");
    }
}
