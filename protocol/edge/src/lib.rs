//! What a device decides, without doing any of it: where a request is placed ([`offload`], from how
//! long the two ways take ([`paths`], [`quantiles`])), what that may cost in a day ([`budget`]), when and how
//! much is downloaded ([`download`]), from whom beside the cloud ([`peers`]), which
//! node of the cloud is asked ([`balance`]), what is packed on the way ([`thrift`]), whether
//! accepted answers are still as good as was said ([`audit`]), when
//! the cloud is left alone for a while ([`breaker`]), when to try again ([`backoff`]), whether it is still there
//! ([`pulse`]), how a
//! model gets from wanted to active ([`update`]), whether it does as well as the one before ([`shadow`],
//! [`probation`]), how the agent's own next program takes over ([`takeover`]), when a certificate is renewed ([`renewal`]), how often an operator is
//! answered ([`questions`]), what time it is where the
//! clock may be wrong ([`time`]), and what is told of all that ([`spool`]).
//!
//! Plain values in, plain values out: `now` and entropy are arguments, so that both sides, the
//! network and time can be simulated in one thread from one seed.

pub mod audit;
pub mod backoff;
pub mod balance;
pub mod breaker;
pub mod budget;
pub mod download;
pub mod offload;
pub mod paths;
pub mod peers;
pub mod probation;
pub mod pulse;
pub mod quantiles;
pub mod questions;
pub mod renewal;
pub mod sequences;
pub mod shadow;
pub mod spool;
pub mod takeover;
pub mod thrift;
pub mod time;
pub mod update;

/// An event that the state does not allow: a fault in the caller, never a peer's doing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {event} is not allowed in state {state}")]
pub struct IllegalTransition {
    /// The state as text.
    pub state: String,
    /// The event as text.
    pub event: String,
}

impl IllegalTransition {
    fn new(state: impl std::fmt::Debug, event: impl std::fmt::Debug) -> Self {
        Self { state: format!("{state:?}"), event: format!("{event:?}") }
    }
}
