//! Answers kept to compare others with: of rows of probabilities only what is not nearly nothing.
//!
//! A recogniser answers a line with 40 rows of 6,625 probabilities, of which a handful matter. Whole, the answers to a few
//! hundred lines take more memory than the search may have.

/// What is below the largest number divided by this may be left out...
const NOTHING: f32 = 4096.0;
/// ...if all of that together is at most this share of the squares...
const LOST_MAX: f64 = 1e-6;
/// ...and at most one number in so many is left.
const SPARSE: usize = 8;

/// One output's numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kept {
    length: usize,
    numbers: Numbers,
}

#[derive(Debug, Clone, PartialEq)]
enum Numbers {
    All(Vec<f32>),
    Few(Vec<(u32, f32)>),
}

impl Kept {
    pub(super) fn of(values: Vec<f32>) -> Self {
        let length = values.len();
        let numbers = few(&values).map_or(Numbers::All(values), Numbers::Few);
        Self { length, numbers }
    }

    pub(super) fn size_bytes(&self) -> usize {
        match &self.numbers {
            Numbers::All(values) => size_of_val(&values[..]),
            Numbers::Few(values) => size_of_val(&values[..]),
        }
    }

    /// The cosine between this and other numbers; 0 for another length.
    pub(super) fn cosine(&self, other: &[f32]) -> f64 {
        if other.len() != self.length {
            return 0.0;
        }
        let product = |a: f32, b: f32| f64::from(a) * f64::from(b);
        let theirs: f64 = other.iter().map(|v| product(*v, *v)).sum();
        let (own, both) = match &self.numbers {
            Numbers::All(values) => (
                values.iter().map(|v| product(*v, *v)).sum::<f64>(),
                values.iter().zip(other).map(|(a, b)| product(*a, *b)).sum::<f64>(),
            ),
            Numbers::Few(values) => (
                values.iter().map(|(_, v)| product(*v, *v)).sum::<f64>(),
                values.iter().map(|(place, v)| product(*v, other[*place as usize])).sum::<f64>(),
            ),
        };
        match own * theirs > 0.0 {
            true => both / (own * theirs).sqrt(),
            false => f64::from(u8::from(own == theirs)),
        }
    }
}

/// The numbers that matter with their places; none where too many do.
fn few(values: &[f32]) -> Option<Vec<(u32, f32)>> {
    let least = values.iter().fold(0.0f32, |most, value| most.max(value.abs())) / NOTHING;
    let matters = |value: &f32| value.abs() > least;
    let count = values.iter().filter(|value| matters(value)).count();
    let squares = |value: &f32| f64::from(*value).powi(2);
    let lost: f64 = values.iter().filter(|value| !matters(value)).map(squares).sum();
    let all: f64 = values.iter().map(squares).sum();
    if count * SPARSE > values.len() || lost > all * LOST_MAX {
        return None;
    }
    let places = values.iter().enumerate().filter(|(_, value)| matters(value));
    places.map(|(place, value)| Some((u32::try_from(place).ok()?, *value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[f32], other: &[f32], sparse: bool) {
        let kept = Kept::of(values.to_vec());
        assert_eq!(matches!(kept.numbers, Numbers::Few(_)), sparse, "{kept:?}");
        let whole = Kept { length: values.len(), numbers: Numbers::All(values.to_vec()) };
        let (near, exact) = (kept.cosine(other), whole.cosine(other));
        assert!((near - exact).abs() < 1e-6, "{near} {exact}");
        assert_eq!(kept.cosine(&other[1..]), 0.0);
    }

    #[test]
    fn rows_of_probabilities_are_kept_short_and_compared_the_same() {
        let mut row = vec![1e-6f32; 400];
        (row[7], row[200]) = (0.9, 0.09);
        let mut other = row.clone();
        other[201] = 0.3;
        check(&row, &other, true);
        let dense: Vec<f32> = (0..400u16).map(|i| f32::from(i) - 200.0).collect();
        check(&dense, &other, false);
    }

    #[test]
    fn nothing_is_like_nothing_only() {
        let zeros = Kept::of(vec![0.0; 16]);
        assert_eq!(zeros.cosine(&[0.0; 16]), 1.0);
        assert_eq!(zeros.cosine(&[1.0; 16]), 0.0);
    }
}
