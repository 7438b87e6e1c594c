//! What logits say: the class of an item, or the classes that the tokens of a recogniser spell.

use protocol::tensor::Tensor;

use super::largest;
use crate::error::RunError;
use crate::numbers;

/// The logits of a batch, item by item.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Items {
    /// Tokens of each item; absent for a classifier.
    pub(super) tokens: Option<usize>,
    /// Classes of an item, or of each of its tokens.
    pub(super) classes: usize,
    values: Vec<f64>,
}

impl Items {
    /// Of `[n, classes]` or `[n, tokens, classes]`, of any numeric datatype.
    pub(super) fn of(logits: &Tensor) -> Result<Self, RunError> {
        let count = |size: i64| usize::try_from(size).ok().filter(|count| *count > 0);
        let dimensions = match *logits.shape() {
            [_, classes] => count(classes).map(|classes| (None, classes)),
            [_, tokens, classes] => {
                count(tokens).zip(count(classes)).map(|(tokens, classes)| (Some(tokens), classes))
            }
            _ => None,
        };
        let (Some(values), Some((tokens, classes))) = (numbers::to_f64(logits), dimensions) else {
            let text = format!(
                "the logits {:?} are not numbers [n, classes] or [n, tokens, classes]",
                logits.name()
            );
            return Err(RunError::Failed(text));
        };
        Ok(Self { tokens, classes, values })
    }

    /// All logits of each item.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks(self.tokens.unwrap_or(1) * self.classes)
    }

    /// What an item of this batch spells.
    pub(super) fn spelled(&self, item: &[f64], blank: Option<u32>) -> Option<Vec<usize>> {
        spelled(item, self.classes, blank.filter(|_| self.tokens.is_some()))
    }
}

/// The most probable class of each token. With a blank that is the best path of CTC (Graves et al.,
/// ICML 2006, section 3.2): repeats are one token, and blanks none. `None` for logits without a softmax.
pub fn spelled(logits: &[f64], classes: usize, blank: Option<u32>) -> Option<Vec<usize>> {
    let blank = blank.map(|class| class as usize);
    let (mut spelled, mut last) = (Vec::new(), None);
    for token in logits.chunks(classes) {
        let (class, _) = largest(token)?;
        let repeats = last.replace(class) == Some(class);
        if blank.is_none_or(|blank| class != blank && !repeats) {
            spelled.push(class);
        }
    }
    Some(spelled)
}

/// What each item of a batch of logits says, as [`spelled`]; a classifier's says one class.
///
/// # Errors
/// No logits of a classifier or recogniser.
pub(crate) fn says(
    logits: &Tensor,
    blank: Option<u32>,
) -> Result<Vec<Option<Vec<usize>>>, RunError> {
    let items = Items::of(logits)?;
    Ok(items.iter().map(|item| items.spelled(item, blank)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_spell_with_and_without_a_blank() {
        let path = [0usize, 2, 2, 0, 2, 1, 1];
        let logits: Vec<f64> = path
            .iter()
            .flat_map(|class| (0..3).map(move |c| f64::from(u8::from(c == *class))))
            .collect();
        assert_eq!(spelled(&logits, 3, None).unwrap(), path);
        assert_eq!(spelled(&logits, 3, Some(0)).unwrap(), [2, 2, 1]);
        assert_eq!(spelled(&[f64::NAN, 0.0], 2, None), None);
        assert_eq!(spelled(&[1.0, 0.0], 2, Some(0)).unwrap(), [] as [usize; 0]);
    }
}
