//! How many accepted answers differ from the cloud's: what a device sees of its bound, for where both
//! are wrong, or only the cloud is, the answers differ too, and nothing is lost by accepting one.
//!
//! The threshold was chosen by looking at the same items. So its bound must hold for every threshold
//! that could have been chosen: each is bounded by Clopper and Pearson with its part of the error
//! (Bonferroni). That is crude, and costs little, because the tail of a binomial falls so fast.

use protocol::manifest::{ConfidenceRule, Truth};

use super::binomial::clopper_pearson_upper;
use super::learn_then_test::{Outcomes, Tested};
use super::{Example, Options};

/// With the stated probability no larger share of what `found` accepts differs.
pub(super) fn bound(
    rule: &ConfidenceRule,
    examples: &[&Example],
    thresholds: &[f32],
    found: Tested,
    options: &Options,
) -> f64 {
    if options.truth == Truth::Cloud {
        return options.risk; // an error is nothing else then
    }
    let read = |e: &&Example| (e.confidence(rule), e.edge() != e.cloud);
    let differing = Outcomes::new(examples.iter().map(read)).at(found.threshold);
    let error = (1.0 - options.confidence) / thresholds.len() as f64;
    clopper_pearson_upper(differing.errors, differing.accepted, 1.0 - error)
}
