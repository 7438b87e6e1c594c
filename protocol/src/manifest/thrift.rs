//! Which inputs of a cloud variant may travel to it in fewer bytes, and what that was measured to cost.

use serde::{Deserialize, Serialize};

use super::{InvalidManifest, Manifest, Step};
use crate::id::Variant;
use crate::tensor::DataType;
use crate::transport::{Allowances, Transport};

/// The inputs that may travel packed, all of them at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thrift {
    /// How each travels.
    pub inputs: Allowances,
    /// What it may cost.
    pub tolerance: ThriftTolerance,
    /// What it did cost.
    pub measured: ThriftEffect,
}

/// What packing may cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThriftTolerance {
    /// The share of answers whose class may change, 0 to 1; classifiers need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_changed: Option<f64>,
    /// How far a number of an output may lie from what it would be: `|a - b| <= max_difference * (1 + |b|)`.
    /// Models that are no classifiers need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_difference: Option<f32>,
}

/// What packing did to the answers to the data of an authoring folder.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThriftEffect {
    /// Items, each asked alone.
    pub items: u64,
    /// Of how many the class changed; of classifiers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<u64>,
    /// The largest share of answers whose class changes that is compatible with that (Clopper and Pearson
    /// 1934, one-sided, 95 %), for data like these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at_most: Option<f64>,
    /// The largest `|a - b| / (1 + |b|)` over all numbers of all outputs.
    pub difference: f64,
    /// Bytes of those inputs as they were, and as they travel.
    pub raw_bytes: u64,
    /// See [`Self::raw_bytes`].
    pub sent_bytes: u64,
}

fn contradiction(text: String) -> Result<(), InvalidManifest> {
    Err(InvalidManifest::Contradiction(text))
}

impl Manifest {
    /// Refuses what cannot travel packed, and tolerances that are none.
    pub(super) fn check_thrift(&self) -> Result<(), InvalidManifest> {
        let Some(thrift) = &self.thrift else { return Ok(()) };
        if self.variant != Variant::Cloud {
            return contradiction("thrift is for what the cloud variant is sent".to_owned());
        }
        for (name, allowance) in &thrift.inputs {
            self.check_packed(name)?;
            let extent_max = allowance.extent_max;
            if !(extent_max >= 0.0 && extent_max.is_finite())
                || allowance.transport == Transport::Raw
            {
                return contradiction(format!(
                    "the input {name:?} needs a form, and an extent >= 0"
                ));
            }
        }
        self.check_thrift_numbers(thrift)
    }

    /// An application's own `FP32` for an input must mean what the model takes.
    fn check_packed(&self, name: &str) -> Result<(), InvalidManifest> {
        let served = self.served_inputs();
        if !served.iter().any(|spec| spec.name == name && spec.datatype == DataType::Fp32) {
            return contradiction(format!("{name:?} is no FP32 input that applications send"));
        }
        let sound =
            |step: &Step| matches!(step, Step::Frame { .. } | Step::LogMel(_) | Step::Fit { .. });
        if self.preprocess.iter().any(|p| p.input == name && p.steps.iter().any(sound)) {
            return contradiction(format!("applications send {name:?} as samples of sound"));
        }
        Ok(())
    }

    fn check_thrift_numbers(&self, thrift: &Thrift) -> Result<(), InvalidManifest> {
        let ThriftTolerance { max_changed, max_difference } = thrift.tolerance;
        let states =
            if self.classes.is_some() { max_changed.is_some() } else { max_difference.is_some() };
        // Comparisons written so that NaN fails them.
        let shares = max_changed.is_none_or(|share| (0.0..=1.0).contains(&share));
        let distances =
            max_difference.is_none_or(|distance| distance >= 0.0 && distance.is_finite());
        if !(states && shares && distances) {
            let text =
                "thrift needs max_changed (0 to 1) for a classifier, max_difference (>= 0) else";
            return contradiction(text.to_owned());
        }
        Ok(())
    }
}
