//! `histogram_quantile(histogram, share)`: an aggregate over packed histograms.

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{Accumulator, AggregateUDF, Volatility, create_udaf};
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use telemetry::histogram::SCALE;
use telemetry::wire::Histogram;

pub(crate) fn histogram_quantile() -> AggregateUDF {
    create_udaf(
        "histogram_quantile",
        vec![DataType::Binary, DataType::Float64],
        Arc::new(DataType::Float64),
        Volatility::Immutable,
        Arc::new(|_| Ok(Box::new(Quantile::default()))),
        Arc::new(vec![DataType::Binary, DataType::Float64]),
    )
}

/// Histograms merged so far, and the share that is asked for.
#[derive(Debug, Default)]
struct Quantile {
    merged: Merged,
    share: f64,
}

impl Accumulator for Quantile {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [histograms, shares] = values else {
            return exec_err!("histogram_quantile(histogram, share)");
        };
        if let Some(share) =
            shares.as_primitive_opt::<Float64Type>().and_then(|s| s.iter().flatten().next())
        {
            self.share = share;
        }
        let histograms = cast(histograms, &DataType::Binary)?;
        for packed in histograms.as_binary::<i32>().iter().flatten() {
            match Histogram::decode(packed) {
                Ok(histogram) => self.merged.add(&histogram),
                Err(_) => {
                    return exec_err!(
                        "histogram_quantile takes the histograms of table aggregates"
                    );
                }
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let merged = self.merged.to_wire().map(|histogram| histogram.encode_to_vec());
        Ok(vec![ScalarValue::Binary(merged), ScalarValue::Float64(Some(self.share))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let quantile = self.merged.to_wire().and_then(|histogram| histogram.quantile(self.share));
        Ok(ScalarValue::Float64(quantile))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.merged.size_bytes()
    }
}

/// Histograms, bucket by bucket.
#[derive(Debug, Default)]
struct Merged {
    buckets: BTreeMap<i32, u64>,
    zeros: u64,
    count: u64,
    sum: f64,
    max: f64,
}

impl Merged {
    fn add(&mut self, read: &Histogram) {
        for (index, count) in (read.offset..).zip(&read.buckets) {
            *self.buckets.entry(rescaled(index, read.scale)).or_default() += count;
        }
        self.zeros += read.zeros;
        self.count += read.count;
        self.sum += read.sum;
        self.max = self.max.max(read.max);
    }

    fn to_wire(&self) -> Option<Histogram> {
        let offset = self.buckets.keys().next().copied().unwrap_or(0);
        let last = self.buckets.keys().next_back().copied().unwrap_or(offset);
        let at = |index| self.buckets.get(&index).copied().unwrap_or(0);
        let Self { zeros, count, sum, max, .. } = *self;
        let buckets = (offset..=last).map(at).collect();
        let merged = Histogram { scale: SCALE, offset, buckets, zeros, count, sum, min: 0.0, max };
        (count > 0).then_some(merged)
    }

    fn size_bytes(&self) -> usize {
        self.buckets.len() * 32
    }
}

/// The bucket at [`SCALE`] of a bucket at another scale: finer ones fall together, of a coarser one the last.
fn rescaled(index: i32, scale: i32) -> i32 {
    match scale - SCALE {
        finer @ 0..=30 => index >> finer,
        coarser @ -30..0 => ((index + 1) << -coarser) - 1,
        _ => index,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use telemetry::histogram;

    #[test]
    fn merged_histograms_have_the_quantiles_of_all_their_values() {
        let mut all = histogram::Histogram::default();
        let mut merged = Merged::default();
        for device in 1..=10 {
            let mut own = histogram::Histogram::default();
            for i in 1..=100 {
                own.record(f64::from(device * i));
                all.record(f64::from(device * i));
            }
            merged.add(&own.to_wire().unwrap());
        }
        let (all, merged) = (all.to_wire().unwrap(), merged.to_wire().unwrap());
        for share in [0.01, 0.5, 0.99, 1.0] {
            assert_eq!(merged.quantile(share), all.quantile(share));
        }
    }

    #[test]
    fn other_scales_fall_into_the_bucket_that_holds_their_upper_end() {
        assert_eq!(
            [rescaled(7, SCALE), rescaled(7, SCALE + 1), rescaled(7, SCALE - 1)],
            [7, 3, 15]
        );
    }
}
