//! The plain rule of selective classification with a reject option (Chow 1970), without a bound: the
//! smallest threshold whose accuracy on the calibration data lies within `max_drop` of the cloud's
//! alone. That is an observation about these data, and nothing follows from it for others.

use protocol::manifest::Calibration;

/// How the threshold was chosen, as manifests record it.
pub const METHOD: &str = "smallest threshold within max_drop of the cloud on the calibration \
                          data; empirical, no bound";

/// One labelled item, answered by both variants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Item {
    /// The edge's confidence, 0 to 1.
    pub confidence: f32,
    /// Whether the edge is right.
    pub edge_correct: bool,
    /// Whether the cloud is right.
    pub cloud_correct: bool,
}

/// Why no threshold can be chosen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NoThreshold {
    /// There are no items.
    #[error("there are no calibration data")]
    Empty,
    /// A confidence outside 0..1, or NaN.
    #[error("the confidence {0} lies outside 0..1")]
    Confidence(f32),
    /// A drop outside 0..1, or NaN.
    #[error("max_drop is a share from 0 to 1, not {0}")]
    MaxDrop(f64),
    /// Even deferring everything that a threshold can defer loses too much: the edge is wrong with
    /// a confidence of exactly 1.
    #[error(
        "no threshold comes within {max_drop} of the cloud: the edge is wrong with full confidence"
    )]
    Unreachable {
        /// The drop that was allowed.
        max_drop: f64,
    },
}

/// The smallest threshold in 0..=1 with which edge and cloud together are right on at least the
/// cloud's share of the items minus `max_drop` (a share, 0.005 is half a point). Items of equal
/// confidence are accepted or deferred together.
///
/// # Errors
/// [`NoThreshold`].
#[allow(clippy::cast_precision_loss)] // counts of items
pub fn choose(items: &[Item], max_drop: f64) -> Result<Calibration, NoThreshold> {
    check(items, max_drop)?;
    let mut items = items.to_vec();
    items.sort_by(|a, b| a.confidence.total_cmp(&b.confidence));
    let total = items.len() as f64;
    let right = |correct: fn(&Item) -> bool| items.iter().filter(|i| correct(i)).count() as f64;
    // A count may miss the goal by rounding of the product only.
    let goal = right(|i| i.cloud_correct) - max_drop * total - 1e-9 * total;
    let mut hybrid = right(|i| i.edge_correct);
    let (mut threshold, mut deferred) = (0.0, 0.0);
    for group in items.chunk_by(|a, b| a.confidence == b.confidence) {
        if hybrid >= goal {
            break;
        }
        threshold = group[0].confidence.next_up();
        deferred += group.len() as f64;
        let gain = |i: &Item| f64::from(i.cloud_correct) - f64::from(i.edge_correct);
        hybrid += group.iter().map(gain).sum::<f64>();
    }
    if hybrid < goal || threshold > 1.0 {
        return Err(NoThreshold::Unreachable { max_drop });
    }
    Ok(Calibration::bare(threshold, METHOD, items.len() as u64, deferred / total))
}

fn check(items: &[Item], max_drop: f64) -> Result<(), NoThreshold> {
    if items.is_empty() {
        return Err(NoThreshold::Empty);
    }
    if !(0.0..=1.0).contains(&max_drop) {
        return Err(NoThreshold::MaxDrop(max_drop));
    }
    let outside = items.iter().find(|i| !(0.0..=1.0).contains(&i.confidence));
    outside.map_or(Ok(()), |i| Err(NoThreshold::Confidence(i.confidence)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn correct_with(items: &[Item], threshold: f32) -> usize {
        let right = |i: &&Item| {
            if i.confidence >= threshold { i.edge_correct } else { i.cloud_correct }
        };
        items.iter().filter(right).count()
    }

    /// The definition, tried at every threshold that can matter.
    fn brute_force(items: &[Item], allowed_drop: usize) -> Option<f32> {
        let cloud = items.iter().filter(|i| i.cloud_correct).count();
        let mut candidates: Vec<f32> = items.iter().map(|i| i.confidence.next_up()).collect();
        candidates.push(0.0);
        candidates.sort_by(f32::total_cmp);
        let good = |t: &f32| *t <= 1.0 && correct_with(items, *t) + allowed_drop >= cloud;
        candidates.into_iter().find(good)
    }

    /// Every multiset of 5 items over 4 confidences (ties and the end points included) and all
    /// ways of being right, with every drop.
    #[test]
    fn agrees_with_the_definition_on_every_small_case() {
        const ITEMS: usize = 5;
        let kinds: Vec<Item> = (0..16u8)
            .map(|kind| Item {
                confidence: [0.0, 0.25, 0.5, 1.0][usize::from(kind / 4)],
                edge_correct: kind & 1 != 0,
                cloud_correct: kind & 2 != 0,
            })
            .collect();
        let mut cases = 0;
        let mut picks = [0usize; ITEMS];
        loop {
            let items = picks.map(|kind| kinds[kind]);
            for allowed in 0..=ITEMS {
                let chosen = choose(&items, allowed as f64 / ITEMS as f64);
                let threshold = chosen.as_ref().ok().map(|c| c.threshold);
                assert_eq!(threshold, brute_force(&items, allowed), "{items:?} {allowed}");
                cases += 1;
            }
            let Some(last) = picks.iter().rposition(|kind| *kind < 15) else { break };
            let next = picks[last] + 1;
            picks[last..].fill(next);
        }
        assert_eq!(cases, 15_504 * 6); // C(16 + 5 - 1, 5) multisets
    }

    #[test]
    fn the_record_tells_how_many_are_deferred() {
        let item =
            |confidence, edge_correct| Item { confidence, edge_correct, cloud_correct: true };
        let items = [item(0.9, true), item(0.4, false), item(0.4, true), item(0.8, true)];
        let chosen = choose(&items, 0.0).unwrap();
        assert_eq!(chosen.threshold, 0.4f32.next_up());
        assert_eq!((chosen.samples, chosen.deferral_rate), (4, 0.5));
        assert_eq!(choose(&items, 0.25).unwrap().deferral_rate, 0.0);
    }

    #[test]
    fn what_cannot_be_chosen_from_is_refused() {
        let item = |confidence| Item { confidence, edge_correct: false, cloud_correct: true };
        assert_eq!(choose(&[], 0.0), Err(NoThreshold::Empty));
        assert_eq!(choose(&[item(1.5)], 0.0), Err(NoThreshold::Confidence(1.5)));
        assert_eq!(choose(&[item(0.5)], -0.1), Err(NoThreshold::MaxDrop(-0.1)));
        assert!(choose(&[item(f32::NAN)], 0.0).is_err());
        assert!(choose(&[item(0.5)], f64::NAN).is_err());
        assert_eq!(choose(&[item(1.0)], 0.0), Err(NoThreshold::Unreachable { max_drop: 0.0 }));
    }
}
