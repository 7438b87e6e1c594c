//! How sure a classifier is: what its calibration's rule reads from the logits, or the softmax of its
//! most probable class; and which its most probable classes are. A recogniser has such logits for each
//! token: its classes spell a text, and it is as sure as its tokens are.

use protocol::manifest::{Classes, ConfidenceRule, LABEL_OUTPUT, PROBABILITY_OUTPUT, Score};
use protocol::tensor::{InvalidTensor, Tensor};

use crate::error::RunError;

mod score;
mod spelling;
pub use score::{confidence, confidence_of, score, sequence_score};
pub(crate) use score::{logistic, score_of};
use spelling::Items;
pub(crate) use spelling::says;
pub use spelling::spelled;

/// Reads the confidence and the label from a classifier's logits.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassReader {
    /// The output `[n, classes]` or `[n, tokens, classes]` with the logits.
    pub logits: String,
    /// The labels in class order; empty when there are none.
    pub labels: Vec<String>,
    /// How many classes the labels and probabilities tell, at least 1.
    pub top_k: usize,
    /// How the confidence is read; the softmax of the most probable class when absent, for a recogniser
    /// the geometric mean of that of its tokens.
    pub rule: Option<ConfidenceRule>,
    /// The class that stands for no token.
    pub blank: Option<u32>,
}

/// What a classifier said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// The lowest confidence over the items, 0 to 1; `None` for a batch of none.
    pub confidence: Option<f32>,
    /// The most probable class's label, or the labels that the tokens spell, for a batch of one and a
    /// labelled model.
    pub label: Option<String>,
}

/// The most probable class of one item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Top {
    /// The class; the first of equals.
    pub class: usize,
    /// Its softmax, or what a rule makes of the logits, 0 to 1.
    pub confidence: f32,
}

impl ClassReader {
    /// A reader for a manifest's classes.
    pub fn new(classes: &Classes, labels: Vec<String>, rule: Option<ConfidenceRule>) -> Self {
        let top_k = classes.top_k.unwrap_or(1).max(1) as usize;
        Self { logits: classes.logits.clone(), labels, top_k, rule, blank: classes.blank }
    }

    /// Reads a batch.
    ///
    /// # Errors
    /// As [`top_classes`].
    pub fn read(&self, logits: &Tensor) -> Result<Reading, RunError> {
        let items = Items::of(logits)?;
        if items.tokens.is_some() {
            return self.read_texts(&items, logits);
        }
        let tops = top_classes_by(logits, self.rule.as_ref())?;
        let label = match tops.as_slice() {
            [only] => self.labels.get(only.class).cloned(),
            _ => None,
        };
        Ok(Reading { confidence: tops.iter().map(|t| t.confidence).reduce(f32::min), label })
    }

    /// Reads a batch of sequences.
    fn read_texts(&self, items: &Items, logits: &Tensor) -> Result<Reading, RunError> {
        let texts = self.texts(items, logits)?;
        let label = match texts.as_slice() {
            [(text, _)] if !self.labels.is_empty() => Some(text.clone()),
            _ => None,
        };
        Ok(Reading { confidence: texts.iter().map(|(_, c)| *c).reduce(f32::min), label })
    }

    /// What the tokens of each item spell, and how sure that is.
    fn texts(&self, items: &Items, logits: &Tensor) -> Result<Vec<(String, f32)>, RunError> {
        let plain = plain_sequence_rule();
        let rule = self.rule.as_ref().unwrap_or(&plain);
        let read = |item: &[f64]| {
            let text = self.text(&items.spelled(item, self.blank)?);
            Some((text, confidence_of(rule, item, items.classes)?))
        };
        let texts: Option<Vec<_>> = items.iter().map(read).collect();
        texts.ok_or_else(|| RunError::NotANumber(logits.name().to_owned()))
    }

    /// Labels one after the other; numbers, with spaces between, where there are none.
    fn text(&self, classes: &[usize]) -> String {
        if self.labels.is_empty() {
            let numbers: Vec<String> = classes.iter().map(usize::to_string).collect();
            return numbers.join(" ");
        }
        classes.iter().filter_map(|class| self.labels.get(*class)).map(String::as_str).collect()
    }

    /// The labels of the `k` most probable classes of each item, `BYTES` `[n,k]`, most probable
    /// first; a class without a label is its number. Of a recogniser what it spells, `[n,1]`.
    ///
    /// # Errors
    /// As [`top_classes`].
    pub fn label_tensor(&self, logits: &Tensor) -> Result<Tensor, RunError> {
        let items = Items::of(logits)?;
        if items.tokens.is_some() {
            let texts = self.texts(&items, logits)?.into_iter().map(|(text, _)| text);
            let shape = vec![logits.shape()[0], 1];
            return Tensor::from_byte_strings(LABEL_OUTPUT, shape, &texts.collect::<Vec<_>>())
                .map_err(|e| failed(&e));
        }
        let (shape, best) = self.best(logits)?;
        let label = |top: &Top| match self.labels.get(top.class) {
            Some(label) => label.clone(),
            None => top.class.to_string(),
        };
        let labels: Vec<String> = best.iter().map(label).collect();
        Tensor::from_byte_strings(LABEL_OUTPUT, shape, &labels).map_err(|e| failed(&e))
    }

    /// The probabilities of those classes, `FP32` `[n,k]`; of a recogniser its confidence, `[n,1]`.
    ///
    /// # Errors
    /// As [`top_classes`].
    pub fn probability_tensor(&self, logits: &Tensor) -> Result<Tensor, RunError> {
        let items = Items::of(logits)?;
        if items.tokens.is_some() {
            let sure = self.texts(&items, logits)?.into_iter().map(|(_, confidence)| confidence);
            let shape = vec![logits.shape()[0], 1];
            return Tensor::from_f32(PROBABILITY_OUTPUT, shape, &sure.collect::<Vec<_>>())
                .map_err(|e| failed(&e));
        }
        let (shape, best) = self.best(logits)?;
        let values: Vec<f32> = best.iter().map(|top| top.confidence).collect();
        Tensor::from_f32(PROBABILITY_OUTPUT, shape, &values).map_err(|e| failed(&e))
    }

    /// `[n,k]` and the most probable classes of each item, one item after the other.
    fn best(&self, logits: &Tensor) -> Result<(Vec<i64>, Vec<Top>), RunError> {
        let items = Items::of(logits)?;
        let k = self.top_k.min(items.classes);
        let not_a_number = || RunError::NotANumber(logits.name().to_owned());
        let mut best = Vec::new();
        for item in items.iter() {
            let mut all = shares(item).ok_or_else(not_a_number)?;
            all.sort_by(|a, b| b.confidence.total_cmp(&a.confidence)); // stable: first of equals
            best.extend_from_slice(&all[..k]);
        }
        Ok((vec![logits.shape()[0], i64::try_from(k).unwrap_or(i64::MAX)], best))
    }
}

fn failed(error: &InvalidTensor) -> RunError {
    RunError::Failed(error.to_string())
}

/// The most probable class of each item of logits `[n, classes]`, of any numeric datatype.
///
/// # Errors
/// [`RunError::NotANumber`] for NaN or infinity, [`RunError::Failed`] for another shape.
pub fn top_classes(logits: &Tensor) -> Result<Vec<Top>, RunError> {
    top_classes_by(logits, None)
}

/// The same, with the confidence as a rule reads it.
fn top_classes_by(logits: &Tensor, rule: Option<&ConfidenceRule>) -> Result<Vec<Top>, RunError> {
    let items = Items::of(logits)?;
    let not_a_number = || RunError::NotANumber(logits.name().to_owned());
    let read = |item: &[f64]| match rule {
        None => top(item),
        Some(rule) => Some(Top { class: largest(item)?.0, confidence: confidence(rule, item)? }),
    };
    items.iter().map(|item| read(item).ok_or_else(not_a_number)).collect()
}

/// What a model said to one item.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Its logits: of its classes, or of each of its tokens in turn.
    pub logits: Vec<f64>,
    /// How many classes there are.
    pub classes: usize,
    /// Its class, or those that its tokens spell; none for logits without a softmax.
    pub answer: Vec<usize>,
    /// Whether it is a sequence of tokens.
    pub is_sequence: bool,
}

/// What logits say to each item, for whoever calibrates.
///
/// # Errors
/// [`RunError::Failed`] for another shape.
pub fn said(logits: &Tensor, blank: Option<u32>) -> Result<Vec<Said>, RunError> {
    let items = Items::of(logits)?;
    let read = |item: &[f64]| Said {
        logits: item.to_vec(),
        classes: items.classes,
        answer: items.spelled(item, blank).unwrap_or_default(),
        is_sequence: items.tokens.is_some(),
    };
    Ok(items.iter().map(read).collect())
}

/// The share of items that are answered otherwise; nothing where the two are no logits of the same
/// items.
pub fn disagreement(one: &Tensor, other: &Tensor, blank: Option<u32>) -> Option<f64> {
    let answers = |logits| -> Option<Vec<Vec<usize>>> {
        let items = Items::of(logits).ok()?;
        items.iter().map(|item| items.spelled(item, blank)).collect()
    };
    let (one, other) = (answers(one)?, answers(other)?);
    if one.len() != other.len() || one.is_empty() {
        return None;
    }
    let differ = one.iter().zip(&other).filter(|(a, b)| a != b).count();
    Some(differ as f64 / one.len() as f64)
}

/// How a recogniser without a rule is read.
fn plain_sequence_rule() -> ConfidenceRule {
    let score = Score::MeanToken;
    ConfidenceRule { score, temperatures: vec![1.0], slope: 1.0, offset: 0.0 }
}

/// Softmax of the largest logit, `1 / sum(exp(x - max))`, which cannot overflow. A logit of
/// negative infinity is a class that is ruled out. `None` where there is no softmax.
#[allow(clippy::cast_possible_truncation)] // a share of 1 rounds well
pub(crate) fn top(logits: &[f64]) -> Option<Top> {
    let (class, max) = largest(logits)?;
    let sum: f64 = logits.iter().map(|x| (x - max).exp()).sum();
    Some(Top { class, confidence: (1.0 / sum) as f32 })
}

/// The softmax of every class, under the same rules.
#[allow(clippy::cast_possible_truncation)] // shares of 1 round well
fn shares(logits: &[f64]) -> Option<Vec<Top>> {
    let (_, max) = largest(logits)?;
    let sum: f64 = logits.iter().map(|x| (x - max).exp()).sum();
    let share =
        |(class, x): (usize, &f64)| Top { class, confidence: ((x - max).exp() / sum) as f32 };
    Some(logits.iter().enumerate().map(share).collect())
}

/// The first of the largest logits; `None` for NaN, and where the largest is infinite.
pub(crate) fn largest(logits: &[f64]) -> Option<(usize, f64)> {
    let (mut class, mut max) = (0, f64::NEG_INFINITY);
    for (index, &logit) in logits.iter().enumerate() {
        if logit.is_nan() {
            return None;
        }
        if logit > max {
            (class, max) = (index, logit);
        }
    }
    max.is_finite().then_some((class, max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shape: &[i64], values: &[f32]) -> Result<Reading, RunError> {
        let labels = vec!["cat".to_owned(), "dog".to_owned()];
        let reader = ClassReader { logits: "y".into(), labels, top_k: 1, rule: None, blank: None };
        reader.read(&Tensor::from_f32("y", shape.to_vec(), values).unwrap())
    }

    #[test]
    fn one_item_has_a_label() {
        let reading = check(&[1, 2], &[0.0, 3f32.ln()]).unwrap();
        assert_eq!(reading.label.as_deref(), Some("dog"));
        assert!((reading.confidence.unwrap() - 0.75).abs() < 1e-6);
    }

    #[test]
    fn a_batch_is_as_sure_as_its_least_sure_item() {
        let reading = check(&[3, 2], &[9.0, 0.0, 1.0, 1.0, 0.0, 9.0]).unwrap();
        assert_eq!(reading, Reading { confidence: Some(0.5), label: None });
        assert_eq!(check(&[0, 2], &[]).unwrap(), Reading::default());
    }

    #[test]
    fn a_rule_reads_the_confidence_and_the_label_stays() {
        let rule = ConfidenceRule {
            score: Score::Margin,
            temperatures: vec![2.0],
            slope: 1.0,
            offset: 0.5,
        };
        let labels = vec!["cat".to_owned(), "dog".to_owned()];
        let reader =
            ClassReader { logits: "y".into(), labels, top_k: 1, rule: Some(rule), blank: None };
        let reading =
            reader.read(&Tensor::from_f32("y", vec![1, 2], &[0.0, 3.0]).unwrap()).unwrap();
        let expected = 1.0 / (1.0 + f64::exp(-2.0));
        assert_eq!(reading.label.as_deref(), Some("dog"));
        assert!((f64::from(reading.confidence.unwrap()) - expected).abs() < 1e-6);
    }

    #[test]
    fn a_recogniser_says_what_its_tokens_spell_and_is_as_sure_as_they_are() {
        let labels = ["", "a", "b"].map(str::to_owned).to_vec();
        let rule = None;
        let reader = ClassReader { logits: "y".into(), labels, top_k: 1, rule, blank: Some(0) };
        // Tokens a, a, blank, b, each with a share of 3/5.
        let token = |class: usize| {
            let mut logits = [0.0; 3];
            logits[class] = 3f32.ln();
            logits
        };
        let values = [token(1), token(1), token(0), token(2)].concat();
        let logits = Tensor::from_f32("y", vec![1, 4, 3], &values).unwrap();
        let reading = reader.read(&logits).unwrap();
        assert_eq!(reading.label.as_deref(), Some("ab"));
        assert!((reading.confidence.unwrap() - 0.6).abs() < 1e-6, "{reading:?}");
        let text = reader.label_tensor(&logits).unwrap();
        let texts: Vec<Vec<u8>> = text.byte_elements().map(|text| text.to_vec()).collect();
        assert_eq!((text.shape(), texts), (&[1, 1][..], vec![b"ab".to_vec()]));
        let share = reader.probability_tensor(&logits).unwrap().to_f32().unwrap();
        assert!((share[0] - 0.6).abs() < 1e-6, "{share:?}");
        let shorter = [token(1), token(2)].concat();
        let shorter = Tensor::from_f32("y", vec![1, 2, 3], &shorter).unwrap();
        assert_eq!(disagreement(&logits, &shorter, Some(0)), Some(0.0), "the same text");
        assert_eq!(disagreement(&logits, &shorter, None), Some(1.0));
        let sure = ConfidenceRule { score: Score::LeastToken, ..plain_sequence_rule() };
        let reader = ClassReader { rule: Some(sure), ..reader };
        assert!((reader.read(&logits).unwrap().confidence.unwrap() - 0.6).abs() < 1e-6);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        for values in [[1e30, -1e30], [3e38, 3e37], [0.0, f32::NEG_INFINITY]] {
            assert_eq!(check(&[1, 2], &values).unwrap().confidence, Some(1.0), "{values:?}");
        }
    }

    #[test]
    fn the_most_probable_classes_come_first() {
        let reader = |top_k| {
            let labels = vec!["cat".into()];
            ClassReader { logits: "y".into(), labels, top_k, rule: None, blank: None }
        };
        let logits = Tensor::from_f32("y", vec![2, 3], &[0.0, 3f32.ln(), 0.0, 5.0, 5.0, -9e9]);
        let logits = logits.unwrap();
        let labels = |k| {
            let tensor = reader(k).label_tensor(&logits).unwrap();
            let texts = tensor.byte_elements().map(|b| String::from_utf8(b.to_vec()).unwrap());
            (tensor.shape().to_vec(), texts.collect::<Vec<_>>().join(" "))
        };
        assert_eq!(labels(1), (vec![2, 1], "1 cat".to_owned()));
        assert_eq!(labels(2), (vec![2, 2], "1 cat cat 1".to_owned()));
        assert_eq!(labels(9), (vec![2, 3], "1 cat 2 cat 1 2".to_owned()));
        let shares = reader(3).probability_tensor(&logits).unwrap().to_f32().unwrap();
        for (share, expected) in shares.iter().zip([0.6, 0.2, 0.2, 0.5, 0.5, 0.0]) {
            assert!((share - expected).abs() < 1e-6, "{shares:?}");
        }
    }

    #[test]
    fn what_has_no_softmax_is_an_error() {
        let infinite = [f32::INFINITY, 0.0];
        for values in [[f32::NAN, 1.0], [1.0, f32::NAN], infinite, [f32::NEG_INFINITY; 2]] {
            assert_eq!(check(&[1, 2], &values), Err(RunError::NotANumber("y".into())));
        }
        for shape in [vec![2], vec![1, 2, 1, 1], vec![2, 0]] {
            let len = usize::try_from(shape.iter().product::<i64>()).unwrap();
            assert!(matches!(check(&shape, &vec![0.0; len]), Err(RunError::Failed(_))));
        }
    }
}
