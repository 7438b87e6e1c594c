//! What an operator can ask of a device: how it finds itself, and the end of its log. An agent that does not know a
//! question says so; an older one says nothing, and the question ends at its deadline.

use crate::limits::ANSWER_LINES_MAX;
use crate::wire;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A question to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "lowercase", deny_unknown_fields)]
pub enum What {
    /// What `outrigger-agent check --json` says there.
    Check,
    /// The newest lines of its log.
    Logs {
        /// So many at most.
        lines: u32,
        /// Only of the last seconds; 0 for all that are kept.
        #[serde(default)]
        since_s: u64,
    },
}

impl What {
    /// The kind of question as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            What::Check => "check",
            What::Logs { .. } => "logs",
        }
    }

    /// The question under this id, as a device is asked.
    pub fn to_wire(self, id: &str) -> wire::Question {
        let (lines, since_s) = match self {
            What::Check => (0, 0),
            What::Logs { lines, since_s } => (lines.min(ANSWER_LINES_MAX), since_s),
        };
        wire::Question { id: id.to_owned(), what: self.as_str().to_owned(), lines, since_s }
    }

    /// What a device is asked; `None` where this build does not know such a question.
    pub fn of_wire(question: &wire::Question) -> Option<Self> {
        let wire::Question { lines, since_s, .. } = *question;
        match question.what.as_str() {
            "check" => Some(What::Check),
            "logs" => Some(What::Logs { lines: lines.min(ANSWER_LINES_MAX), since_s }),
            _ => None,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Check => f.write_str("check"),
            What::Logs { lines, since_s: 0 } => write!(f, "{lines} lines"),
            What::Logs { lines, since_s } => write!(f, "{lines} lines of the last {since_s} s"),
        }
    }
}

/// As much of the beginning of a text as so many bytes hold.
pub fn cut(text: &str, max_bytes: usize) -> &str {
    let end = (0..=text.len().min(max_bytes)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Why a device does not answer a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Its owner does not want that.
    Forbidden,
    /// It was asked too often.
    TooOften,
    /// It does not know the question.
    Unknown,
    /// It could not find out.
    Failed,
}

impl Refused {
    /// The reason as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Refused::Forbidden => "forbidden",
            Refused::TooOften => "too-often",
            Refused::Unknown => "unknown",
            Refused::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_arrives_as_it_was_asked_within_its_bounds() {
        let check = |asked: What, arrives: Option<What>| {
            assert_eq!(What::of_wire(&asked.to_wire("q-1")), arrives);
        };
        check(What::Check, Some(What::Check));
        let logs = What::Logs { lines: 20, since_s: 60 };
        check(logs, Some(logs));
        check(
            What::Logs { lines: u32::MAX, since_s: 0 },
            Some(What::Logs { lines: ANSWER_LINES_MAX, since_s: 0 }),
        );
        let later = wire::Question { what: "dance".to_owned(), ..What::Check.to_wire("q-1") };
        assert_eq!(What::of_wire(&later), None);
        assert_eq!(logs.to_string(), "20 lines of the last 60 s");
    }
}
