//! What went wrong, in a form that travels: a code, a sentence, and what to do about it.

use std::fmt;

use crate::wire;

/// The kinds of failure that a peer or an application can be told of. The number is the QUIC
/// application error code and the code in a `Problem` message; numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum ProblemCode {
    /// The connection or stream ended in order.
    None = 0,
    /// The peer broke the protocol: unknown frame, wrong order, undecodable message.
    Protocol = 1,
    /// A length beyond its limit.
    TooLarge = 2,
    /// The request is well-formed but wrong: shape, datatype, tensor name.
    InvalidRequest = 3,
    /// No such model, version or blob.
    NotFound = 4,
    /// Identity missing, unknown, expired or denied.
    Unauthorised = 5,
    /// Refused now because of load; try again after the given time.
    Overloaded = 6,
    /// The deadline passed, or cannot be met.
    DeadlineExceeded = 7,
    /// The model itself failed.
    InferenceFailed = 8,
    /// The peer is shutting down.
    GoingAway = 9,
    /// A fault on the answering side that the asker can do nothing about.
    Internal = 10,
    /// The cloud cannot be reached.
    Unreachable = 11,
}

impl ProblemCode {
    const ALL: [ProblemCode; 12] = [
        ProblemCode::None,
        ProblemCode::Protocol,
        ProblemCode::TooLarge,
        ProblemCode::InvalidRequest,
        ProblemCode::NotFound,
        ProblemCode::Unauthorised,
        ProblemCode::Overloaded,
        ProblemCode::DeadlineExceeded,
        ProblemCode::InferenceFailed,
        ProblemCode::GoingAway,
        ProblemCode::Internal,
        ProblemCode::Unreachable,
    ];

    /// The code on the wire.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The code with that number; a number that this build does not know is [`Self::Internal`].
    pub fn from_number(number: u32) -> Self {
        Self::ALL.into_iter().find(|c| c.number() == number).unwrap_or(ProblemCode::Internal)
    }

    /// A word for metrics, logs and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            ProblemCode::None => "none",
            ProblemCode::Protocol => "protocol",
            ProblemCode::TooLarge => "too_large",
            ProblemCode::InvalidRequest => "invalid_request",
            ProblemCode::NotFound => "not_found",
            ProblemCode::Unauthorised => "unauthorised",
            ProblemCode::Overloaded => "overloaded",
            ProblemCode::DeadlineExceeded => "deadline_exceeded",
            ProblemCode::InferenceFailed => "inference_failed",
            ProblemCode::GoingAway => "going_away",
            ProblemCode::Internal => "internal",
            ProblemCode::Unreachable => "unreachable",
        }
    }
}

/// What the standard's two protocols make of a code.
impl ProblemCode {
    /// The status of an answer over HTTP.
    pub fn http_status(self) -> u16 {
        match self {
            ProblemCode::None => 200,
            ProblemCode::InvalidRequest | ProblemCode::Protocol => 400,
            ProblemCode::Unauthorised => 403,
            ProblemCode::NotFound => 404,
            ProblemCode::TooLarge => 413,
            ProblemCode::InferenceFailed | ProblemCode::Internal => 500,
            ProblemCode::Overloaded | ProblemCode::Unreachable | ProblemCode::GoingAway => 503,
            ProblemCode::DeadlineExceeded => 504,
        }
    }

    /// The status of a call over gRPC, as a number and as a word.
    pub fn grpc_status(self) -> (i32, &'static str) {
        match self {
            ProblemCode::None => (0, "OK"),
            ProblemCode::InvalidRequest | ProblemCode::Protocol => (3, "INVALID_ARGUMENT"),
            ProblemCode::DeadlineExceeded => (4, "DEADLINE_EXCEEDED"),
            ProblemCode::NotFound => (5, "NOT_FOUND"),
            ProblemCode::Unauthorised => (7, "PERMISSION_DENIED"),
            ProblemCode::TooLarge => (8, "RESOURCE_EXHAUSTED"),
            ProblemCode::InferenceFailed | ProblemCode::Internal => (13, "INTERNAL"),
            ProblemCode::Overloaded | ProblemCode::Unreachable | ProblemCode::GoingAway => {
                (14, "UNAVAILABLE")
            }
        }
    }

    /// Whether the answering side is at fault, and not whoever asked.
    pub fn is_the_servers(self) -> bool {
        self.http_status() >= 500
    }
}

/// A failure with its reason and a hint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// The kind of failure.
    pub code: ProblemCode,
    /// What happened, one sentence.
    pub message: String,
    /// What the asker can do now; empty when there is nothing.
    pub hint: String,
    /// When to try again, with [`ProblemCode::Overloaded`].
    pub retry_after_ms: u32,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(code: ProblemCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: String::new(), retry_after_ms: 0 }
    }

    /// The same problem with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same problem with the time after which to try again.
    #[must_use]
    pub fn retry_after_ms(mut self, retry_after_ms: u32) -> Self {
        self.retry_after_ms = retry_after_ms;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

/// An error with all its causes, on one line; a cause that only repeats its error is left out.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}

impl From<wire::Problem> for Problem {
    fn from(p: wire::Problem) -> Self {
        Self {
            code: ProblemCode::from_number(p.code),
            message: p.message,
            hint: p.hint,
            retry_after_ms: p.retry_after_ms,
        }
    }
}

impl From<Problem> for wire::Problem {
    fn from(p: Problem) -> Self {
        Self {
            code: p.code.number(),
            message: p.message,
            hint: p.hint,
            retry_after_ms: p.retry_after_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_unknown_ones_are_internal() {
        for code in ProblemCode::ALL {
            assert_eq!(ProblemCode::from_number(code.number()), code);
        }
        assert_eq!(ProblemCode::from_number(4_000_000), ProblemCode::Internal);
    }
}
