//! What is tried first, and why; the order of the reasons is told in the module above.

use super::Profile;
use super::outlook::Share;
use crate::paths::Estimate;
use protocol::infer::{PlacementHint, Reason};
use protocol::problem::{Problem, ProblemCode};
use std::time::Duration;

pub use protocol::infer::{First, Plan};

/// One in so many of the requests that would go to the cloud first goes to the edge first.
pub const EXPLORE_EVERY: u64 = 16;
/// Below this fill of the budget no request goes to the cloud before the edge was asked...
const FILL_CLOUD_FIRST: f64 = 0.25;
/// ...and below this one none for the sake of time alone.
const FILL_FOR_TIME: f64 = 0.5;

/// When the usual order is left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// The cloud is asked first where at least this share of the edge answers is deferred.
    pub cloud_first_share: f64,
    /// The cloud is asked first where it is faster by at least this.
    pub cloud_gain: Duration,
    /// Both are asked at once only where at least this share of the edge answers is deferred.
    pub hedge_share: f64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { cloud_first_share: 0.9, cloud_gain: Duration::from_millis(20), hedge_share: 0.05 }
    }
}

/// What is known when a request arrives.
#[derive(Debug, Clone, Copy)]
pub struct Situation {
    /// Until the answer must be on its way to the application.
    pub remaining: Duration,
    /// The model on the device, behind those that wait for it.
    pub edge: Estimate,
    /// The cloud, or why it cannot be asked.
    pub cloud: Result<Estimate, Reason>,
    /// How full the day's budget is, 0 to 1.
    pub fill: f64,
    /// How many edge answers were deferred lately.
    pub deferred: Share,
    /// Whether it is the turn of the edge, to learn how it does now.
    pub explores: bool,
}

/// The plan for a request.
///
/// # Errors
/// The application asks for the cloud, and this model cannot go there.
pub fn choose(
    profile: &Profile,
    rules: &Rules,
    hint: PlacementHint,
    situation: &Situation,
) -> Result<Plan, Problem> {
    let plan = |first, reason| Ok(Plan { first, reason });
    match hint {
        PlacementHint::Edge => plan(First::EdgeOnly, Reason::Requested),
        PlacementHint::Cloud if profile.never_leaves_device => {
            let text = "this model never leaves the device, so the cloud cannot be asked";
            Err(Problem::new(ProblemCode::InvalidRequest, text)
                .hint("leave the parameter \"placement\" out"))
        }
        PlacementHint::Cloud if !profile.cloud_variant => {
            let text = "this version has no cloud variant";
            Err(Problem::new(ProblemCode::NotFound, text)
                .hint("leave the parameter \"placement\" out, or push a cloud variant"))
        }
        PlacementHint::Cloud => plan(First::Cloud, Reason::Requested),
        PlacementHint::Auto if profile.can_defer() => {
            let weighed = weigh(rules, situation);
            match weighed.first {
                First::Cloud if situation.explores => plan(First::Edge, Reason::Exploring),
                _ => Ok(weighed),
            }
        }
        PlacementHint::Auto => plan(First::EdgeOnly, Reason::EdgeOnlyModel),
    }
}

fn weigh(rules: &Rules, situation: &Situation) -> Plan {
    let Situation { remaining, edge, fill, deferred, .. } = *situation;
    let plan = |first, reason| Plan { first, reason };
    let cloud = match situation.cloud {
        Ok(cloud) => cloud,
        Err(reason) => return plan(First::Edge, reason),
    };
    let cloud_in_time = cloud.high <= remaining;
    if !edge.is_founded() {
        return plan(First::Edge, Reason::Exploring);
    }
    if edge.usual > remaining && cloud_in_time && fill >= FILL_CLOUD_FIRST {
        return plan(First::Cloud, Reason::EdgeTooSlow);
    }
    // The fallback to the edge model must still fit behind the cloud.
    let cloud_then_edge = cloud.high + edge.high <= remaining;
    if deferred.is_founded()
        && deferred.share >= rules.cloud_first_share
        && cloud_then_edge
        && fill >= FILL_CLOUD_FIRST
    {
        return plan(First::Cloud, Reason::UsuallyDeferred);
    }
    if cloud.is_founded()
        && edge.usual >= cloud.high + rules.cloud_gain
        && cloud_then_edge
        && fill >= FILL_FOR_TIME
    {
        return plan(First::Cloud, Reason::EdgeSlower);
    }
    let in_turn = edge.high + cloud.high <= remaining;
    if !in_turn && cloud_in_time && deferred.share >= rules.hedge_share && fill >= FILL_FOR_TIME {
        return plan(First::Hedge, Reason::DeadlineTight);
    }
    plan(First::Edge, Reason::Cheapest)
}

/// The plan for a piece of a sequence: its state is here, so it is answered here, and never deferred.
///
/// # Errors
/// The application asks for the cloud.
pub fn sequence(hint: PlacementHint) -> Result<Plan, Problem> {
    let reason = match hint {
        PlacementHint::Cloud => {
            let text = "the state of a sequence is on the device, so the cloud cannot be asked";
            return Err(Problem::new(ProblemCode::InvalidRequest, text)
                .hint("leave the parameter \"placement\" out, or send the stream as a whole"));
        }
        PlacementHint::Edge => Reason::Requested,
        PlacementHint::Auto => Reason::Sequence,
    };
    Ok(Plan { first: First::EdgeOnly, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn profile() -> Profile {
        Profile {
            threshold: Some(0.8),
            risk: None,
            cloud_variant: true,
            never_leaves_device: false,
        }
    }

    fn takes(usual_ms: u64, high_ms: u64) -> Estimate {
        Estimate { usual: MS(usual_ms), high: MS(high_ms), evidence: 50.0 }
    }

    fn calm() -> Situation {
        Situation {
            remaining: MS(1_000),
            edge: takes(5, 8),
            cloud: Ok(takes(40, 60)),
            fill: 1.0,
            deferred: Share { share: 0.15, evidence: 50.0 },
            explores: false,
        }
    }

    fn check(profile: Profile, hint: PlacementHint, situation: &Situation) -> String {
        match choose(&profile, &Rules::default(), hint, situation) {
            Ok(Plan { first, reason }) => format!("{} {}", first.as_str(), reason.as_str()),
            Err(problem) => problem.code.as_str().to_owned(),
        }
    }

    #[test]
    fn what_is_asked_for_and_what_is_forbidden_go_first() {
        use PlacementHint::{Auto, Cloud, Edge};
        let private = Profile { never_leaves_device: true, ..profile() };
        let alone = Profile { cloud_variant: false, ..profile() };
        let unruled = Profile { threshold: None, ..profile() };
        let calm = calm();
        assert_eq!(check(profile(), Auto, &calm), "edge_first cheapest");
        assert_eq!(check(profile(), Edge, &calm), "edge_only requested");
        assert_eq!(check(profile(), Cloud, &calm), "cloud_first requested");
        for never_deferred in [private, alone, unruled] {
            assert_eq!(check(never_deferred, Auto, &calm), "edge_only edge_only_model");
        }
        assert_eq!(check(private, Cloud, &calm), "invalid_request");
        assert_eq!(check(alone, Cloud, &calm), "not_found");
        assert_eq!(check(unruled, Cloud, &calm), "cloud_first requested");
    }

    #[test]
    fn the_reasons_in_their_order() {
        let calm = calm();
        let often = Share { share: 0.95, evidence: 50.0 };
        let slow = takes(100, 120);
        let cases = [
            (Situation { cloud: Err(Reason::BreakerOpen), ..calm }, "edge_first breaker_open"),
            (Situation { edge: Estimate::default(), ..calm }, "edge_first exploring"),
            (Situation { remaining: MS(80), edge: slow, ..calm }, "cloud_first edge_too_slow"),
            (Situation { remaining: MS(50), edge: slow, ..calm }, "edge_first cheapest"),
            (Situation { deferred: often, ..calm }, "cloud_first usually_deferred"),
            (
                Situation { deferred: Share { evidence: 2.0, ..often }, ..calm },
                "edge_first cheapest",
            ),
            (Situation { deferred: often, fill: 0.2, ..calm }, "edge_first cheapest"),
            (Situation { deferred: often, explores: true, ..calm }, "edge_first exploring"),
            (Situation { edge: slow, ..calm }, "cloud_first edge_slower"),
            (Situation { edge: takes(70, 90), ..calm }, "edge_first cheapest"),
            (Situation { edge: slow, fill: 0.4, ..calm }, "edge_first cheapest"),
            (Situation { remaining: MS(64), ..calm }, "hedge deadline_tight"),
            (
                Situation { remaining: MS(64), deferred: often, ..calm },
                "hedge deadline_tight", // no time for the edge model behind the cloud
            ),
            (Situation { remaining: MS(64), fill: 0.4, ..calm }, "edge_first cheapest"),
            (
                Situation {
                    remaining: MS(64),
                    deferred: Share { share: 0.01, evidence: 50.0 },
                    ..calm
                },
                "edge_first cheapest",
            ),
        ];
        for (situation, expected) in cases {
            assert_eq!(
                check(profile(), PlacementHint::Auto, &situation),
                expected,
                "{situation:?}"
            );
        }
    }

    #[test]
    fn pieces_of_sequences_stay_on_the_device() {
        let plan = |hint| sequence(hint).map(|plan| (plan.first, plan.reason));
        assert_eq!(plan(PlacementHint::Auto), Ok((First::EdgeOnly, Reason::Sequence)));
        assert_eq!(plan(PlacementHint::Edge), Ok((First::EdgeOnly, Reason::Requested)));
        assert_eq!(plan(PlacementHint::Cloud).unwrap_err().code, ProblemCode::InvalidRequest);
    }
}
