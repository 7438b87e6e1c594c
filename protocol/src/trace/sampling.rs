//! Which traces are recorded, decided at their head.
//!
//! Where the caller has decided, that holds. Else a share of all traces is drawn from the trace's own
//! id, as OpenTelemetry's consistent sampling has it: an id is taken if its last 56 bits, as a number,
//! reach a threshold. So programs with different shares decide alike wherever they can.

use super::context::{TraceContext, TraceId};

/// All values of 56 bits.
const VALUES: u64 = 1 << 56;

/// Which traces are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// The ids below are left out.
    threshold: u64,
}

impl Sampling {
    /// So many of the traces that begin here, 0 to 1.
    pub fn share(share: f64) -> Self {
        let left_out = (1.0 - share.clamp(0.0, 1.0)) * VALUES as f64;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 2^56
        Self { threshold: (left_out.round() as u64).min(VALUES) }
    }

    /// Whether a request is recorded; `id` is that of a trace that would begin with it.
    pub fn takes(self, parent: Option<&TraceContext>, id: TraceId) -> bool {
        match parent {
            Some(parent) => parent.is_sampled(),
            None => self.draws(id),
        }
    }

    fn draws(self, id: TraceId) -> bool {
        let mut last = [0; 8];
        last[1..].copy_from_slice(&id.bytes()[9..]);
        u64::from_be_bytes(last) >= self.threshold
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::SpanId;
    use super::*;

    fn id(last_56: u64) -> TraceId {
        let mut bytes = [9; 16];
        bytes[8..].copy_from_slice(&(last_56 | 5 << 56).to_be_bytes());
        TraceId::from_entropy(bytes)
    }

    #[test]
    fn the_callers_decision_holds() {
        for share in [0.0, 1.0] {
            for sampled in [false, true] {
                let span = SpanId::from_entropy([1; 8]);
                let parent = TraceContext::begin(id(0), span, sampled);
                assert_eq!(Sampling::share(share).takes(Some(&parent), id(1)), sampled);
            }
        }
    }

    #[test]
    fn a_share_is_drawn_from_the_id() {
        let draws = |share: f64, last: u64| Sampling::share(share).takes(None, id(last));
        assert!(!draws(0.0, VALUES - 1) && draws(1.0, 0));
        assert!(draws(0.25, VALUES / 4 * 3) && !draws(0.25, VALUES / 4 * 3 - 1));
        let step = VALUES / 1000;
        let taken = (0..1000).filter(|nth| draws(0.1, nth * step + step / 2)).count();
        assert_eq!(taken, 100);
        assert!((0..1000).all(|nth| !draws(0.1, nth * step) || draws(0.2, nth * step)));
    }
}
