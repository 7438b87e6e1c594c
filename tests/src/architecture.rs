//! The architecture, as rules that a machine keeps.
//!
//! Three kinds of rule, each a table with the reason beside it, because the reason is what a person needs who just broke it:
//!
//! - [`imports`]: which crate of the workspace may import which, and what no crate may reach through anything it imports;
//! - [`sources`]: the length of a file, and what no source file may hold;
//! - [`top_level`]: which names the root of the repository may hold.
//!
//! The checkers take plain values ([`graph::Graph`], text, names) and return [`Violation`]s, so that a test can prove
//! that each of them does fail. `tests/tests/architecture.rs` feeds them the real workspace.

use std::fmt;

pub mod graph;
pub mod imports;
pub mod metadata;
pub mod sources;
pub mod top_level;

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What broke it: `a -> b`, a file and line, or a name.
    pub what: String,
    /// The rule, and why it exists.
    pub rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n    {}", self.what, self.rule)
    }
}

/// All violations as one text to fail a test with; `None` when there is none.
#[must_use]
pub fn report(violations: &[Violation]) -> Option<String> {
    if violations.is_empty() {
        return None;
    }
    let lines: Vec<String> = violations.iter().map(|violation| format!("- {violation}")).collect();
    Some(format!("{} rule(s) of the architecture broken:\n{}", violations.len(), lines.join("\n")))
}
