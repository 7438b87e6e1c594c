//! A linear model of two classes on sparse features: what the text task's edge is, and its cloud's head.

use models::calibrate::random::Random;

/// Features of one item: places and values, each place once.
pub(super) type Features = Vec<(usize, f32)>;

/// Weights of logistic regression.
pub(super) struct Linear {
    weights: Vec<f32>,
    bias: f32,
}

/// How it is trained.
#[derive(Debug, Clone, Copy)]
pub(super) struct Training {
    /// Features there may be.
    pub(super) width: usize,
    /// Times over the data.
    pub(super) epochs: usize,
    /// The first step's length.
    pub(super) rate: f32,
    /// How strongly weights are drawn to 0.
    pub(super) decay: f32,
}

impl Linear {
    /// By stochastic gradient descent with AdaGrad's steps (Duchi, Hazan, Singer 2011).
    pub(super) fn train(items: &[(Features, bool)], how: Training) -> Self {
        let mut model = Self { weights: vec![0.0; how.width], bias: 0.0 };
        let mut squares = vec![1e-8f32; how.width + 1];
        let mut random = Random::new(11);
        let mut order: Vec<usize> = (0..items.len()).collect();
        for _ in 0..how.epochs {
            random.shuffle(&mut order);
            for index in &order {
                let (features, positive) = &items[*index];
                let error = 1.0 / (1.0 + (-model.score(features)).exp()) - f32::from(*positive);
                for (place, value) in features {
                    let weight = &mut model.weights[*place];
                    let gradient = error * value + how.decay * *weight;
                    squares[*place] += gradient * gradient;
                    *weight -= how.rate * gradient / squares[*place].sqrt();
                }
                squares[how.width] += error * error;
                model.bias -= how.rate * error / squares[how.width].sqrt();
            }
        }
        model
    }

    /// The logit of the second class.
    pub(super) fn score(&self, features: &Features) -> f32 {
        let product = |(place, value): &(usize, f32)| self.weights[*place] * value;
        self.bias + features.iter().map(product).sum::<f32>()
    }
}

/// A vector as features.
pub(super) fn dense(vector: &[f32]) -> Features {
    vector.iter().copied().enumerate().collect()
}

/// Words and pairs of neighbours, hashed into so many places (FNV-1a), each once, of length 1.
#[allow(clippy::cast_possible_truncation)] // below `width`
pub(super) fn hashed(text: &str, width: usize) -> Features {
    let lower = text.to_lowercase();
    let words: Vec<&str> =
        lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let place = |parts: &[&str]| {
        let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        (bytes.fold(0xcbf2_9ce4_8422_2325, step) % width as u64) as usize
    };
    let pairs = words.windows(2).map(place);
    let mut places: Vec<usize> = words.iter().map(|w| place(&[*w])).chain(pairs).collect();
    places.sort_unstable();
    places.dedup();
    let value = 1.0 / (places.len().max(1) as f32).sqrt();
    places.into_iter().map(|place| (place, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_learnt() {
        let texts = ["a good film", "good fun", "a bad film", "bad, bad day"];
        let items: Vec<(Features, bool)> =
            texts.iter().enumerate().map(|(i, t)| (hashed(t, 64), i < 2)).collect();
        let how = Training { width: 64, epochs: 50, rate: 0.5, decay: 0.0 };
        let model = Linear::train(&items, how);
        assert!(items.iter().all(|(features, good)| (model.score(features) > 0.0) == *good));
        assert_eq!(hashed("Good  FILM!", 64), hashed("good film", 64));
    }
}
