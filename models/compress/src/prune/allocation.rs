//! How many channels each group loses.
//!
//! Some groups can spare half of their channels for nothing, others none. Of each it is known what every further channel
//! costs its readers; how much that matters to the model's answers is seen by pruning the group alone. Then channels go
//! where they matter least for what they save, until the wanted share of all is gone.

use super::channels::GroupId;

/// What one group would lose.
#[derive(Debug, Clone)]
pub(super) struct Curve {
    pub(super) id: GroupId,
    /// How many channels it has.
    pub(super) channels: usize,
    /// How many go together.
    pub(super) unit: usize,
    /// What each unit more costs, in the order in which they would go.
    pub(super) losses: Vec<f64>,
    /// How much the answers move for each unit of loss.
    pub(super) weight: f64,
    /// What computing each channel takes ([`super::cost`]).
    pub(super) work: f64,
}

/// The group keeps at least that share of its channels.
const KEPT_MIN: f64 = 0.4;

/// Of the work, at least that share of what goes of the channels.
const WORK: f64 = 0.9;

impl Curve {
    /// The units that would go next, so that a multiple of channels stays; none when no more may go.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share of a count
    fn step(&self, gone: usize, multiple: usize) -> Option<usize> {
        let left = self.channels - gone * self.unit;
        let step = match (left % multiple, self.unit) {
            (_, unit) if unit > 1 => 1,
            (0, _) => multiple,
            (rest, _) => rest,
        };
        let least = (self.channels as f64 * KEPT_MIN).ceil() as usize;
        let enough = left >= step * self.unit + least.max(1);
        (enough && gone + step <= self.losses.len()).then_some(step)
    }
}

/// For each curve, how many units go, so that `keep` of all channels are left, and not much more of the work:
/// late layers have most of the channels, early ones most of the work, so that work counts the more, the less of it would go.
pub(super) fn allocate(curves: &[Curve], keep: f64, all: usize, multiple: usize) -> Vec<usize> {
    let whole: f64 = curves.iter().map(|curve| curve.work * curve.channels as f64).sum();
    let wanted = WORK * (1.0 - keep) * whole;
    let saved = |goes: &[usize]| -> f64 {
        let each = curves.iter().zip(goes);
        each.map(|(curve, units)| (units * curve.unit) as f64 * curve.work).sum()
    };
    let mut goes = Vec::new();
    for work in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0] {
        goes = spread(curves, (keep, all, multiple), work / whole.max(1.0));
        if saved(&goes) >= wanted {
            break;
        }
    }
    goes
}

/// The same for one price of a multiplication.
fn spread(curves: &[Curve], (keep, all, multiple): (f64, usize, usize), work: f64) -> Vec<usize> {
    let mut goes = vec![0; curves.len()];
    let mut left = all as f64;
    while left > keep * all as f64 {
        let price = |(index, curve): (usize, &Curve)| {
            let step = curve.step(goes[index], multiple)?;
            let loss: f64 = curve.losses[goes[index]..][..step].iter().sum();
            let saved = (step * curve.unit) as f64;
            let worth = saved / all as f64 + saved * curve.work * work;
            Some((loss * curve.weight / worth, index, step))
        };
        let cheapest =
            curves.iter().enumerate().filter_map(price).min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((_, index, step)) = cheapest else { break };
        goes[index] += step;
        left -= (step * curves[index].unit) as f64;
    }
    goes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(id: GroupId, channels: usize, loss: f64, weight: f64) -> Curve {
        let losses = (0..channels).map(|i| loss * i as f64).collect();
        Curve { id, channels, unit: 1, losses, weight, work: 1.0 }
    }

    #[test]
    fn channels_go_where_they_matter_least() {
        let curves = [curve(0, 64, 0.1, 1.0), curve(1, 64, 0.01, 1.0), curve(2, 64, 0.01, 50.0)];
        let goes = allocate(&curves, 0.8, 192, 8);
        assert_eq!(goes.iter().sum::<usize>(), 40, "{goes:?}");
        assert!(goes[1] >= 24 && goes[1] <= 38, "{goes:?}");
        assert!(goes.iter().all(|n| n % 8 == 0), "{goes:?}");
    }

    #[test]
    fn heads_go_whole_and_nobody_loses_too_much() {
        let heads = Curve { unit: 32, ..curve(0, 384, 0.0, 1.0) };
        let heads = Curve { losses: vec![0.0; 12], ..heads };
        assert_eq!(allocate(&[heads], 0.1, 384, 8), [7]);
        let odd = curve(0, 20, 0.0, 1.0);
        assert_eq!(allocate(&[odd], 0.5, 20, 8), [12]);
    }
}
