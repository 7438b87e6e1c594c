//! The one way to an answer, for agents over QUIC and for clients over HTTPS: admitted on the
//! header, then run, metered whatever becomes of it.

use oip::Ask;
use protocol::infer::{InferRequest, InferResponse};
use protocol::problem::Problem;
use protocol::tensor::Tensor;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::access::Identity;
use crate::serving::{Admitted, Asker};
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
}

impl Taken {
    /// Who asks.
    pub fn caller(&self) -> &Arc<str> {
        self.charge.caller()
    }
}

impl Cloud {
    /// Takes a request that must be answered within `remaining`, or refuses it at once.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn admit(
        self: &Arc<Self>,
        identity: &Identity,
        asker: Asker,
        ask: &Ask<'_>,
        remaining: Duration,
    ) -> Result<Taken, Problem> {
        let known = self.serving.knows(ask.model).then(|| ask.model.clone());
        let mut charge = Charge::new(self, identity, known);
        let admitted = self.serving.admit(asker, ask, remaining);
        let admitted = admitted.inspect_err(|problem| charge.failed(problem))?;
        Ok(Taken { arrived: Instant::now(), admitted, charge })
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
        deadline: Instant,
    ) -> Result<InferResponse, Problem> {
        taken.charge.arrived(size_bytes(&request.inputs));
        let response = self.serving.infer(taken.admitted, request, deadline).await;
        let response = response.inspect_err(|problem| taken.charge.failed(problem))?;
        let (verdict, bytes_out) = (&response.verdict, size_bytes(&response.outputs));
        taken.charge.answered(verdict, verdict.timing.infer_us, bytes_out);
        Ok(response)
    }
}

fn size_bytes(tensors: &[Tensor]) -> u64 {
    tensors.iter().map(|tensor| tensor.data().len() as u64).sum()
}
