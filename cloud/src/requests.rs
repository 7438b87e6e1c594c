//! The one way to an answer, for agents over QUIC and for clients over HTTPS: admitted on the
//! header, then run, metered whatever becomes of it.

use link::traces::Trace;
use protocol::infer::{InferRequest, InferResponse};
use protocol::problem::Problem;
use protocol::tensor::Tensor;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::access::Identity;
use crate::serving::{self, Admitted, Inferred, Knock, Size};
use crate::state::Cloud;

mod charge;

use charge::Charge;
pub use charge::{Ended, Outcome};

/// A request that was taken, before its tensors arrived. Dropping it gives its place back.
pub struct Taken {
    /// When its header arrived.
    pub arrived: Instant,
    admitted: Admitted,
    charge: Charge,
    deadline: Instant,
}

impl Taken {
    /// Who asks.
    pub fn caller(&self) -> &Arc<str> {
        self.charge.caller()
    }

    /// When the answer is of no use any more.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// It turned out to be wrong, or did not arrive whole.
    pub fn spoilt(mut self, problem: &Problem) {
        self.charge.failed(problem);
    }

    /// What its body says, where the header did not; `wait` counts from its arrival.
    ///
    /// # Errors
    /// There is no memory for it, or no time.
    pub fn specify(mut self, request: &InferRequest, wait: Duration) -> Result<Self, Problem> {
        let now = Instant::now();
        let size = Size {
            items: serving::items(request),
            bytes: size_bytes(&request.inputs),
            priority: request.priority,
            remaining: (self.arrived + wait).saturating_duration_since(now),
            background: false,
        };
        let specified = self.admitted.specify(size);
        specified.inspect_err(|problem| self.charge.failed(problem))?;
        self.deadline = now + self.admitted.remaining();
        Ok(self)
    }
}

impl Cloud {
    /// Takes a request, or refuses it at once.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn admit(
        self: &Arc<Self>,
        identity: &Identity,
        knock: &Knock<'_>,
        trace: Trace,
    ) -> Result<Taken, Problem> {
        let arrived = Instant::now();
        let known = self.serving.knows(knock.model).then(|| knock.model.clone());
        let mut charge = Charge::new(self, identity, known, trace);
        if knock.size.background {
            charge.count_apart();
        }
        let admitted = self.serving.admit(identity, knock);
        let admitted = admitted.inspect_err(|problem| charge.failed(problem))?;
        let deadline = arrived + admitted.remaining();
        Ok(Taken { arrived, admitted, charge, deadline })
    }

    /// Answers a taken request before its deadline, or says why there is no answer. Dropping the
    /// future cancels the request.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn answer(
        &self,
        mut taken: Taken,
        request: InferRequest,
    ) -> Result<InferResponse, Problem> {
        taken.charge.arrived(size_bytes(&request.inputs));
        let inferred = self.serving.infer(taken.admitted, request, taken.deadline).await;
        let inferred = inferred.inspect_err(|problem| taken.charge.failed(problem))?;
        let compute_us = u64::try_from(inferred.compute.as_micros()).unwrap_or(u64::MAX);
        self.ran(compute_us);
        let bytes_out = size_bytes(&inferred.response.outputs);
        let Inferred { response, began, requests, .. } = inferred;
        taken.charge.ran(&response.verdict.timing, began, requests);
        taken.charge.answered(&response.verdict, compute_us, bytes_out);
        Ok(response)
    }
}

fn size_bytes(tensors: &[Tensor]) -> u64 {
    tensors.iter().map(|tensor| tensor.data().len() as u64).sum()
}
