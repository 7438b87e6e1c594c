//! Which models are meant: names in which `*` stands for any run of characters.

use crate::id::ModelName;
use crate::limits::{NAME_MAX_BYTES, PATTERNS_MAX_COUNT};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why a text is not a list of patterns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPatterns {
    /// A character that no model's name has.
    #[error("a pattern has 1 to {NAME_MAX_BYTES} letters, digits, '.', '_', '-' and '*': {text:?}")]
    Pattern {
        /// The offending text.
        text: String,
    },
    /// None, or too many.
    #[error("there are 1 to {PATTERNS_MAX_COUNT} patterns, not {count}")]
    Count {
        /// How many there are.
        count: usize,
    },
}

/// Patterns, one of which must match. As text they are separated by spaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct ModelPatterns(Arc<[String]>);

impl ModelPatterns {
    /// Every model.
    pub fn all() -> Self {
        Self(Arc::new(["*".to_owned()]))
    }

    /// Whether a model is meant.
    pub fn matches(&self, model: &ModelName) -> bool {
        self.0.iter().any(|pattern| matches(pattern.as_bytes(), model.as_str().as_bytes()))
    }
}

/// Each `*` takes as little as it can; on a difference the last one takes one more.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(byte) if *byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((after_star, taken)) = retry else { return false };
                retry = Some((after_star, taken + 1));
                (p, t) = (after_star, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

impl TryFrom<Vec<String>> for ModelPatterns {
    type Error = InvalidPatterns;
    fn try_from(patterns: Vec<String>) -> Result<Self, InvalidPatterns> {
        let count = patterns.len();
        if !(1..=PATTERNS_MAX_COUNT).contains(&count) {
            return Err(InvalidPatterns::Count { count });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '*');
        let valid = |text: &&String| {
            (1..=NAME_MAX_BYTES).contains(&text.len()) && text.chars().all(allowed)
        };
        match patterns.iter().find(|text| !valid(text)) {
            Some(text) => Err(InvalidPatterns::Pattern { text: text.clone() }),
            None => Ok(Self(patterns.into())),
        }
    }
}

impl From<ModelPatterns> for Vec<String> {
    fn from(patterns: ModelPatterns) -> Self {
        patterns.0.to_vec()
    }
}

impl FromStr for ModelPatterns {
    type Err = InvalidPatterns;
    fn from_str(text: &str) -> Result<Self, InvalidPatterns> {
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().try_into()
    }
}

impl fmt::Display for ModelPatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_run() {
        for (patterns, model, expected) in [
            ("*", "anything", true),
            ("fashion", "fashion", true),
            ("fashion", "fashion2", false),
            ("fash*", "fashion", true),
            ("fash*", "fash", true),
            ("*-v*-x", "a-v1-v2-x", true),
            ("*-v*-x", "a-v1-v2-y", false),
            ("*a*a*a", "aaaa", true),
            ("*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaac", false),
            ("a b*", "bird", true),
            ("a b*", "cat", false),
        ] {
            let patterns: ModelPatterns = patterns.parse().unwrap();
            assert_eq!(patterns.matches(&model.parse().unwrap()), expected, "{patterns} {model}");
        }
    }

    #[test]
    fn text_round_trip_and_bad_ones() {
        let patterns: ModelPatterns = " a*  b ".parse().unwrap();
        assert_eq!(patterns.to_string(), "a* b");
        assert_eq!(patterns.to_string().parse(), Ok(patterns));
        for bad in ["", " ", "a/b", "ü", &"a".repeat(129), &"a ".repeat(65)] {
            assert!(bad.parse::<ModelPatterns>().is_err(), "{bad}");
        }
    }
}
