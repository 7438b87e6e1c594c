//! The table: which operator is treated how.

/// How an operator is quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Multiplies by weights: the reason to quantize at all. Its input is quantized for it.
    Weighted {
        /// Where output channels are counted in the weights.
        channels: Channels,
        /// Whether ONNX Runtime fuses it when its output stays in float.
        float_output: bool,
    },
    /// Reads integers and makes integers of another scale. Only where all its inputs are there as integers.
    Own,
    /// Like [`Kind::Own`], but only where its inputs have ranges alike: one scale for unlike ranges rounds
    /// the narrower away.
    Joined,
    /// Moves integers around without a change of scale.
    Moved,
}

/// Where output channels are counted in weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// The first axis.
    First,
    /// The last axis.
    Last,
    /// The last axis, or the first with `transB`.
    ByTransposition,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The operator.
    pub op: &'static str,
    /// How it is treated.
    pub kind: Kind,
    /// What ONNX Runtime makes of it; empty for what keeps its name.
    pub fused: &'static [&'static str],
}

/// All rows. What is not here stays in float: Softmax and other functions of all their inputs at once, whose
/// outputs the next layers read as probabilities; ConvTranspose, which ONNX Runtime does not fuse.
pub const RULES: &[Rule] = &[
    Rule {
        op: "Conv",
        kind: Kind::Weighted { channels: Channels::First, float_output: false },
        fused: &["QLinearConv", "ConvInteger"],
    },
    Rule {
        op: "Gemm",
        kind: Kind::Weighted { channels: Channels::ByTransposition, float_output: true },
        fused: &["QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"],
    },
    Rule {
        op: "MatMul",
        kind: Kind::Weighted { channels: Channels::Last, float_output: true },
        fused: &["QLinearMatMul", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"],
    },
    Rule { op: "Add", kind: Kind::Own, fused: &["QLinearAdd"] },
    Rule { op: "Mul", kind: Kind::Own, fused: &["QLinearMul"] },
    Rule { op: "AveragePool", kind: Kind::Own, fused: &["QLinearAveragePool"] },
    Rule { op: "GlobalAveragePool", kind: Kind::Own, fused: &["QLinearGlobalAveragePool"] },
    Rule { op: "LeakyRelu", kind: Kind::Own, fused: &["QLinearLeakyRelu"] },
    Rule { op: "Sigmoid", kind: Kind::Own, fused: &["QLinearSigmoid"] },
    Rule { op: "Concat", kind: Kind::Joined, fused: &["QLinearConcat"] },
    Rule { op: "MaxPool", kind: Kind::Moved, fused: &[] },
    Rule { op: "Reshape", kind: Kind::Moved, fused: &[] },
    Rule { op: "Flatten", kind: Kind::Moved, fused: &[] },
    Rule { op: "Transpose", kind: Kind::Moved, fused: &[] },
    Rule { op: "Squeeze", kind: Kind::Moved, fused: &[] },
    Rule { op: "Unsqueeze", kind: Kind::Moved, fused: &[] },
];

/// Activation functions that a runtime absorbs: quantizing to a range without negative numbers (or up to
/// their upper end) does what they do.
pub const ABSORBED: [&str; 2] = ["Relu", "Clip"];

/// How much wider the widest range in a [`Kind::Joined`] may be than the narrowest.
pub const ALIKE: f32 = 4.0;

/// The operator's row.
pub fn rule(op: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.op == op)
}
