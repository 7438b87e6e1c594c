//! `histogram_quantile(histogram, share)`: an aggregate over packed histograms.

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{Accumulator, AggregateUDF, Volatility, create_udaf};
use prost::Message;
use std::sync::Arc;
use telemetry::histogram::Histogram;
use telemetry::wire;

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
    merged: Histogram,
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
            match wire::Histogram::decode(packed) {
                Ok(histogram) => self.merged.merge(&histogram),
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
