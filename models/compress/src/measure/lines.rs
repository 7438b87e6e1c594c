//! What a recogniser makes of a line, and how probable it holds others.
//!
//! That a line is read otherwise matters as much as it was sure before: of one that the float model gave a chance of a
//! third, little is lost. So lines are weighed by the probability that the float model itself gives them, summed over all
//! paths that spell them (Graves et al., ICML 2006, section 4.1).

use models::confidence::spelled;
use models::numbers;
use protocol::tensor::Tensor;

/// Classes of a token that are kept; the others share what is left.
const KEPT: usize = 16;

/// The tokens of an item, with the most probable classes of each.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// What is spelled.
    pub(super) spelled: Vec<usize>,
    tokens: Vec<Token>,
    blank: usize,
}

#[derive(Debug, Clone, PartialEq)]
struct Token {
    best: Vec<(usize, f64)>,
    /// The probability of each class that is not among these.
    other: f64,
}

impl Token {
    /// Of scores, which are probabilities already or become such.
    fn of(scores: &[f64]) -> Self {
        let sum: f64 = scores.iter().sum();
        let shares = scores.iter().all(|score| *score >= 0.0) && (sum - 1.0).abs() < 0.01;
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weight = |score: f64| if shares { score } else { (score - most).exp() };
        let all: f64 = scores.iter().map(|score| weight(*score)).sum();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        let by_score = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]);
        let kept = KEPT.min(order.len());
        if kept < order.len() {
            order.select_nth_unstable_by(kept, by_score);
        }
        let best: Vec<(usize, f64)> =
            order[..kept].iter().map(|class| (*class, weight(scores[*class]) / all)).collect();
        let left = 1.0 - best.iter().map(|(_, share)| share).sum::<f64>();
        let other = left.max(1e-9) / (scores.len() - kept).max(1) as f64;
        Self { best, other }
    }

    fn share(&self, class: usize) -> f64 {
        self.best.iter().find(|(kept, _)| *kept == class).map_or(self.other, |(_, share)| *share)
    }
}

impl Line {
    /// Of `[1, tokens, classes]`; none for anything else, or numbers that are none.
    pub(super) fn of(output: &Tensor, blank: u32) -> Option<Self> {
        let &[1, _, classes] = output.shape() else { return None };
        let classes = usize::try_from(classes).ok().filter(|classes| *classes > 1)?;
        let values = numbers::to_f64(output)?;
        Some(Self {
            spelled: spelled(&values, classes, Some(blank))?,
            tokens: values.chunks(classes).map(Token::of).collect(),
            blank: blank as usize,
        })
    }

    /// The probability of a spelling, over all paths.
    pub(super) fn probability(&self, spelling: &[usize]) -> f64 {
        // Blanks between all letters and at both ends.
        let states = 2 * spelling.len() + 1;
        let class = |state: usize| match state % 2 {
            0 => self.blank,
            _ => spelling[state / 2],
        };
        let mut paths = vec![0.0; states];
        for (place, token) in self.tokens.iter().enumerate() {
            let before = paths.clone();
            for (state, path) in paths.iter_mut().enumerate() {
                // A letter may follow another one without a blank, but not itself.
                let leaps = state > 1 && state % 2 == 1 && class(state) != class(state - 2);
                let from = match place {
                    0 => f64::from(u8::from(state < 2)),
                    _ => {
                        let leap = if leaps { before[state - 2] } else { 0.0 };
                        before[state] + state.checked_sub(1).map_or(0.0, |s| before[s]) + leap
                    }
                };
                *path = from * token.share(class(state));
            }
        }
        paths[states - 1] + states.checked_sub(2).map_or(0.0, |state| paths[state])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(rows: &[[f32; 3]]) -> Line {
        let shape = vec![1, i64::try_from(rows.len()).unwrap(), 3];
        Line::of(&Tensor::from_f32("y", shape, &rows.concat()).unwrap(), 0).unwrap()
    }

    #[test]
    fn all_paths_of_a_spelling_count() {
        let line = line(&[[0.5, 0.3, 0.2], [0.4, 0.5, 0.1]]);
        assert_eq!(line.spelled, [1]);
        // "1": 11, 01, 10. Nothing: 00. "12" has one path, "11" none in two tokens.
        let near = |spelling: &[usize], expected: f64| {
            let probability = line.probability(spelling);
            assert!((probability - expected).abs() < 1e-6, "{spelling:?}: {probability}");
        };
        near(&[1], 0.3 * 0.5 + 0.5 * 0.5 + 0.3 * 0.4);
        near(&[], 0.5 * 0.4);
        near(&[1, 2], 0.3 * 0.1);
        near(&[1, 1], 0.0);
    }

    #[test]
    fn scores_become_probabilities() {
        let row = [0.0f32, 2.0f32.ln(), 5.0f32.ln()];
        let line = line(&[row]);
        assert!((line.probability(&[2]) - 5.0 / 8.0).abs() < 1e-6);
    }
}
