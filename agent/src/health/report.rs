//! What came of the checks, and how it is shown: a table for people, JSON for programs, an exit
//! code for scripts.

use comfy_table::{Table, presets};
use serde::Serialize;

/// How one check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// As it should be.
    Ok,
    /// It could not be looked at, because something that it needs is not there.
    Skipped,
    /// It works, but somebody should look at it.
    Warning,
    /// It does not work.
    Failed,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// What part of the device a check looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Group {
    Device,
    Identity,
    Network,
    Runtime,
    Models,
    Agent,
}

impl Group {
    fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Identity => "identity",
            Self::Network => "network",
            Self::Runtime => "runtime",
            Self::Models => "models",
            Self::Agent => "agent",
        }
    }

    /// A check of this group.
    pub(crate) fn check(self, name: impl Into<String>, finding: Finding) -> Check {
        Check { group: self, name: name.into(), finding }
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) outcome: Outcome,
    /// What was seen.
    pub(crate) detail: String,
    /// What a person can do; empty where there is nothing to do.
    pub(crate) hint: String,
}

impl Finding {
    fn new(outcome: Outcome, detail: impl Into<String>) -> Self {
        Self { outcome, detail: detail.into(), hint: String::new() }
    }

    pub(crate) fn ok(detail: impl Into<String>) -> Self {
        Self::new(Outcome::Ok, detail)
    }

    pub(crate) fn skipped(detail: impl Into<String>) -> Self {
        Self::new(Outcome::Skipped, detail)
    }

    pub(crate) fn warning(detail: impl Into<String>) -> Self {
        Self::new(Outcome::Warning, detail)
    }

    pub(crate) fn failed(detail: impl Into<String>) -> Self {
        Self::new(Outcome::Failed, detail)
    }

    /// The same, where something else makes up for it.
    pub(crate) fn at_most_warning(mut self) -> Self {
        if self.outcome == Outcome::Failed {
            self.outcome = Outcome::Warning;
        }
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// One check and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) group: Group,
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) finding: Finding,
}

/// All checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    pub(crate) checks: Vec<Check>,
}

/// Something that was checked does not work.
const FAILED: u8 = 1;

impl Report {
    fn count(&self, outcome: Outcome) -> usize {
        self.checks.iter().filter(|c| c.finding.outcome == outcome).count()
    }

    /// 0 when nothing failed, 1 otherwise. A warning is no failure.
    pub(crate) fn exit_code(&self) -> u8 {
        if self.count(Outcome::Failed) > 0 { FAILED } else { 0 }
    }

    /// `33 checks: 30 ok, 1 warning, 0 failed, 2 skipped`.
    pub(crate) fn summary(&self) -> String {
        let count = |outcome| self.count(outcome);
        format!(
            "{} checks: {} ok, {} warning, {} failed, {} skipped",
            self.checks.len(),
            count(Outcome::Ok),
            count(Outcome::Warning),
            count(Outcome::Failed),
            count(Outcome::Skipped)
        )
    }

    /// A table, then the hints of what is not as it should be, then the summary.
    pub(crate) fn to_text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header(["group", "check", "outcome", "detail"]);
        for check in &self.checks {
            let Finding { outcome, detail, .. } = &check.finding;
            table.add_row([check.group.as_str(), &check.name, outcome.as_str(), detail]);
        }
        let hints = self.checks.iter().filter(|c| !c.finding.hint.is_empty());
        let hints = hints
            .map(|c| format!("{} {}: {}\n", c.finding.outcome.as_str(), c.name, c.finding.hint));
        format!("{table}\n{}{}\n", hints.collect::<String>(), self.summary())
    }

    /// One JSON object.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "agent_version": crate::program::version(),
            "ok": self.exit_code() == 0,
            "summary": self.summary(),
            "checks": self.checks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcomes: &[Outcome]) -> Report {
        let check = |outcome: &Outcome| {
            let hint = if *outcome == Outcome::Ok { "" } else { "do this" };
            Group::Device.check(
                format!("a-{}", outcome.as_str()),
                Finding::new(*outcome, "what was seen").hint(hint),
            )
        };
        Report { checks: outcomes.iter().map(check).collect() }
    }

    #[test]
    fn only_a_failed_check_fails() {
        use Outcome::{Failed, Ok, Skipped, Warning};
        let cases: [(&[Outcome], u8); 4] =
            [(&[], 0), (&[Ok], 0), (&[Ok, Warning, Skipped], 0), (&[Ok, Failed, Warning], 1)];
        for (outcomes, code) in cases {
            assert_eq!(report(outcomes).exit_code(), code, "{outcomes:?}");
        }
    }

    #[test]
    fn reads_like_this() {
        use Outcome::{Failed, Ok, Skipped, Warning};
        insta::assert_snapshot!(report(&[Ok, Warning, Failed, Skipped]).to_text());
        let expected = serde_json::json!({
            "group": "device", "name": "a-warning", "outcome": "warning",
            "detail": "what was seen", "hint": "do this",
        });
        assert_eq!(report(&[Warning]).to_json()["checks"][0], expected);
    }
}
