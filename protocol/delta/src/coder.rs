//! Single decisions in as many bits as they surprise: a binary arithmetic coder whose probabilities learn.
//!
//! Numbers are described once (`numbers`), for both directions: whoever describes says a decision that it
//! believes to be so, and is told the one that is. The encoder writes down what it is told and repeats it; the
//! decoder reads, and does not listen.

use crate::error::DeltaError;
use std::io::Read;

/// Of 2^16: no decision is believed to be more certain than this leaves over.
const CHANCE_MIN: u64 = 24;
/// Decisions of even chances are coded together, at most so many.
const TOGETHER_MAX: u32 = 24;
/// What the decoder reads beyond the end: the encoder leaves out the last bytes.
const MISSING_MAX: u8 = 8;

/// How likely a decision is, by a quick and a slow estimate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bit {
    quick: u16,
    slow: u16,
}

impl Bit {
    /// Nothing is known.
    pub(crate) const EVEN: Self = Self { quick: 1 << 15, slow: 1 << 15 };

    /// Of 2^16.
    fn chance(self) -> u64 {
        let mean = (u64::from(self.quick) + u64::from(self.slow)) / 2;
        mean.clamp(CHANCE_MIN, (1 << 16) - CHANCE_MIN)
    }

    fn learn(&mut self, bit: bool) {
        if bit {
            self.quick += (u16::MAX - self.quick) >> 4;
            self.slow += (u16::MAX - self.slow) >> 7;
        } else {
            self.quick -= self.quick >> 4;
            self.slow -= self.slow >> 7;
        }
    }
}

/// One direction.
pub(crate) trait Coder {
    /// A decision.
    fn bit(&mut self, chance: &mut Bit, bit: bool) -> Result<bool, DeltaError>;

    /// A number of so many bits, at most 32, of which nothing is known.
    fn direct(&mut self, bits: u32, value: u32) -> Result<u32, DeltaError>;

    /// A number of so many bits, its highest first; there are 2^`bits` chances.
    fn tree(&mut self, chances: &mut [Bit], bits: u32, value: u32) -> Result<u32, DeltaError> {
        let mut node = 1;
        for index in (0..bits).rev() {
            let bit = self.bit(&mut chances[node as usize], value >> index & 1 == 1)?;
            node = node << 1 | u32::from(bit);
        }
        Ok(node - (1 << bits))
    }
}

/// What is still possible: the numbers from `low` to `high`, of which whole leading bytes are settled.
#[derive(Debug)]
struct Span {
    low: u64,
    high: u64,
}

impl Span {
    const ALL: Self = Self { low: 0, high: u64::MAX };

    /// The last number that stands for a decision of such a chance.
    fn split(&self, chance: u64) -> u64 {
        let range = self.high - self.low;
        self.low + (range >> 16) * chance + (((range & 0xFFFF) * chance) >> 16)
    }

    fn keep(&mut self, split: u64, bit: bool) {
        if bit { self.high = split } else { self.low = split + 1 }
    }

    /// The width of each of 2^`bits` equal parts.
    fn part(&self, bits: u32) -> u64 {
        (self.high - self.low) >> bits
    }

    fn keep_part(&mut self, part: u64, value: u32) {
        self.low += part * u64::from(value);
        self.high = self.low + (part - 1);
    }

    /// A leading byte that is settled.
    fn settled(&mut self) -> Option<u8> {
        let [first, ..] = self.low.to_be_bytes();
        let is_settled = first == self.high.to_be_bytes()[0];
        is_settled.then(|| {
            self.low <<= 8;
            self.high = self.high << 8 | 0xFF;
            first
        })
    }
}

/// Whether there is room to code so many even decisions at once; the same for both directions.
fn together(span: &Span, bits: u32) -> bool {
    bits <= TOGETHER_MAX && span.part(bits) > 1 << 16
}

/// Writes decisions.
#[derive(Debug)]
pub(crate) struct Encoder {
    span: Span,
    bytes: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { span: Span::ALL, bytes: Vec::new() }
    }

    fn shift(&mut self) {
        while let Some(byte) = self.span.settled() {
            self.bytes.push(byte);
        }
    }

    /// All that was written.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        // Any number of the span will do: the one with the fewest bytes, for the decoder reads zeros behind.
        let mut kept = 1;
        let last = loop {
            match self.rounded(kept) {
                Some(number) if number <= self.span.high => break number,
                _ => kept += 1, // `low` itself has eight
            }
        };
        self.bytes.extend(last.to_be_bytes().into_iter().take(kept as usize));
        self.bytes
    }

    /// The least number from `low` on of which only the first bytes are not zero.
    fn rounded(&self, bytes: u32) -> Option<u64> {
        let below = u64::MAX.checked_shr(8 * bytes).unwrap_or(0);
        Some(self.span.low.checked_add(below)? & !below)
    }
}

impl Coder for Encoder {
    fn bit(&mut self, chance: &mut Bit, bit: bool) -> Result<bool, DeltaError> {
        let split = self.span.split(chance.chance());
        self.span.keep(split, bit);
        chance.learn(bit);
        self.shift();
        Ok(bit)
    }

    fn direct(&mut self, bits: u32, value: u32) -> Result<u32, DeltaError> {
        if together(&self.span, bits) {
            let part = self.span.part(bits);
            self.span.keep_part(part, value);
            self.shift();
            return Ok(value);
        }
        for index in (0..bits).rev() {
            self.bit(&mut { Bit::EVEN }, value >> index & 1 == 1)?;
        }
        Ok(value)
    }
}

/// Reads decisions.
#[derive(Debug)]
pub(crate) struct Decoder<R> {
    span: Span,
    value: u64,
    bytes: R,
    missing: u8,
}

impl<R: Read> Decoder<R> {
    /// `bytes` should have a buffer: they are read one by one.
    pub(crate) fn new(bytes: R) -> Result<Self, DeltaError> {
        let mut decoder = Self { span: Span::ALL, value: 0, bytes, missing: 0 };
        for _ in 0..8 {
            decoder.value = decoder.value << 8 | u64::from(decoder.byte()?);
        }
        Ok(decoder)
    }

    fn byte(&mut self) -> Result<u8, DeltaError> {
        let mut byte = [0];
        if self.missing == 0 && self.bytes.read(&mut byte)? == 1 {
            return Ok(byte[0]);
        }
        self.missing += 1;
        if self.missing > MISSING_MAX { Err(DeltaError::Truncated) } else { Ok(0) }
    }

    fn shift(&mut self) -> Result<(), DeltaError> {
        while self.span.settled().is_some() {
            self.value = self.value << 8 | u64::from(self.byte()?);
        }
        Ok(())
    }
}

impl<R: Read> Coder for Decoder<R> {
    fn bit(&mut self, chance: &mut Bit, _: bool) -> Result<bool, DeltaError> {
        let split = self.span.split(chance.chance());
        let bit = self.value <= split;
        self.span.keep(split, bit);
        chance.learn(bit);
        self.shift()?;
        Ok(bit)
    }

    fn direct(&mut self, bits: u32, _: u32) -> Result<u32, DeltaError> {
        let mut value = 0;
        if together(&self.span, bits) {
            let part = self.span.part(bits);
            // A damaged stream may stand beside every part.
            let index = self.value.saturating_sub(self.span.low) / part;
            value = u32::try_from(index).unwrap_or(u32::MAX).min((1 << bits) - 1);
            self.span.keep_part(part, value);
            self.shift()?;
            return Ok(value);
        }
        for _ in 0..bits {
            value = value << 1 | u32::from(self.bit(&mut { Bit::EVEN }, false)?);
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Codes decisions and numbers with `coder`, and gives what it is told.
    fn run(coder: &mut impl Coder, items: &[(u8, u32)]) -> Result<Vec<u32>, DeltaError> {
        let mut chances = [Bit::EVEN; 16];
        let mut code = |(kind, value): &(u8, u32)| match kind {
            0..=15 => {
                let chance = &mut chances[usize::from(*kind)];
                coder.bit(chance, *value > u32::MAX / 16).map(u32::from)
            }
            bits => coder.direct(u32::from(*bits) - 16, *value),
        };
        items.iter().map(&mut code).collect()
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(
            items in prop::collection::vec((0u8..=48, any::<u32>()), 0..2_000),
        ) {
            let fit = |(kind, value): (u8, u32)| match kind {
                0..=16 => (kind, if kind == 16 { 0 } else { value }),
                bits => (bits, value & (u32::MAX >> (48 - bits))),
            };
            let items: Vec<_> = items.into_iter().map(fit).collect();
            let mut encoder = Encoder::new();
            let written = run(&mut encoder, &items).unwrap();
            let bytes = encoder.finish();
            let read = run(&mut Decoder::new(bytes.as_slice()).unwrap(), &items).unwrap();
            prop_assert_eq!(read, written);
        }

        /// Whatever the bytes are, reading ends: with something, or with the end of the bytes.
        #[test]
        fn any_bytes_can_be_read(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            items in prop::collection::vec((0u8..=48, Just(0u32)), 0..500),
        ) {
            if let Ok(mut decoder) = Decoder::new(bytes.as_slice()) {
                let _ = run(&mut decoder, &items);
            }
        }
    }

    #[test]
    fn what_is_likely_takes_little() {
        let mut encoder = Encoder::new();
        let mut chance = Bit::EVEN;
        for index in 0..100_000 {
            encoder.bit(&mut chance, index % 1_000 == 0).unwrap();
        }
        let bytes = encoder.finish().len();
        assert!(bytes < 250, "{bytes} bytes for 100 of 100,000"); // the entropy is 143 bytes
    }
}
