//! The layers of EfficientNet-Lite0 (<https://arxiv.org/abs/1905.11946>; the Lite form leaves
//! squeeze-and-excitation out and clips at 6), with random weights.

use super::{Graph, Input};

/// Height and width of the picture.
const SIDE: i64 = 224;

/// Blocks of one kind, one behind the other; the first has the stride.
struct Stage {
    expand: i64,
    channels: i64,
    blocks: usize,
    stride: i64,
    kernel: i64,
}

const fn stage(expand: i64, channels: i64, blocks: usize, stride: i64, kernel: i64) -> Stage {
    Stage { expand, channels, blocks, stride, kernel }
}

const STAGES: [Stage; 7] = [
    stage(1, 16, 1, 1, 3),
    stage(6, 24, 2, 2, 3),
    stage(6, 40, 2, 2, 5),
    stage(6, 80, 3, 2, 3),
    stage(6, 112, 3, 1, 5),
    stage(6, 192, 4, 2, 5),
    stage(6, 320, 1, 1, 3),
];
const STEM: i64 = 32;
const HEAD: i64 = 1280;
const CLASSES: i64 = 1000;

/// `image` `[1,3,224,224]` in, `logits` `[1,1000]` out; 0.4 G multiply-adds, 4.6 M weights.
pub fn efficient_net_lite() -> Vec<u8> {
    let mut layers = Layers::new();
    let mut at = layers.convolution("image", Convolution::new(3, STEM, 3).stride(2));
    let mut channels = STEM;
    at = layers.clip(&at);
    for stage in &STAGES {
        for block in 0..stage.blocks {
            let stride = if block == 0 { stage.stride } else { 1 };
            at = layers.block(&at, channels, stage, stride);
            channels = stage.channels;
        }
    }
    at = layers.convolution(&at, Convolution::new(channels, HEAD, 1));
    at = layers.clip(&at);
    let Layers { mut graph, .. } = layers;
    at = graph.node("GlobalAveragePool", &[&at], &[]);
    at = graph.node("Flatten", &[&at], &[]);
    at = graph.dense(&at, HEAD, CLASSES);
    graph.finish(&at, "logits", &[1, CLASSES])
}

#[derive(Clone, Copy)]
struct Convolution {
    from: i64,
    to: i64,
    kernel: i64,
    stride: i64,
    group: i64,
}

impl Convolution {
    fn new(from: i64, to: i64, kernel: i64) -> Self {
        Self { from, to, kernel, stride: 1, group: 1 }
    }

    fn stride(self, stride: i64) -> Self {
        Self { stride, ..self }
    }

    /// Every channel by itself.
    fn depthwise(channels: i64, kernel: i64) -> Self {
        Self { group: channels, ..Self::new(channels, channels, kernel) }
    }
}

/// The graph, with the two bounds of all activations.
struct Layers {
    graph: Graph,
    bounds: [String; 2],
}

impl Layers {
    fn new() -> Self {
        let shape = [1, 3, SIDE, SIDE];
        let mut graph = Graph::new("efficient_net_lite", 1, Input { name: "image", shape: &shape });
        let bounds = [0.0, 6.0].map(|bound| graph.constant(&[], &[bound]));
        Self { graph, bounds }
    }

    fn clip(&mut self, from: &str) -> String {
        let [low, high] = &self.bounds;
        self.graph.node("Clip", &[from, low, high], &[])
    }

    fn convolution(&mut self, from: &str, of: Convolution) -> String {
        let Convolution { from: inputs, to, kernel, stride, group } = of;
        let each = inputs / group;
        let weights = self.graph.weights(&[to, each, kernel, kernel], each * kernel * kernel);
        let bias = self.graph.weights(&[to], to);
        let pad = kernel / 2;
        let attributes: [(&str, &[i64]); 4] = [
            ("kernel_shape", &[kernel, kernel]),
            ("strides", &[stride, stride]),
            ("pads", &[pad, pad, pad, pad]),
            ("group", &[group]),
        ];
        self.graph.node("Conv", &[from, &weights, &bias], &attributes)
    }

    /// Widen, look around channel by channel, narrow; and keep what came in where it fits.
    fn block(&mut self, from: &str, channels: i64, stage: &Stage, stride: i64) -> String {
        let wide = channels * stage.expand;
        let mut at = from.to_owned();
        if stage.expand > 1 {
            at = self.convolution(&at, Convolution::new(channels, wide, 1));
            at = self.clip(&at);
        }
        let around = Convolution::depthwise(wide, stage.kernel).stride(stride);
        at = self.convolution(&at, around);
        at = self.clip(&at);
        at = self.convolution(&at, Convolution::new(wide, stage.channels, 1));
        if stride == 1 && channels == stage.channels {
            at = self.graph.node("Add", &[&at, from], &[]);
        }
        at
    }
}
