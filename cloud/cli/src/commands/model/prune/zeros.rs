//! `--unstructured`: zeros instead of the weights that matter least.

use compress::CompressError;
use compress::measure::Items;
use compress::prune::mask::{MaskOptions, MaskedLayer, mask, sent_bytes, zeros};
use indicatif::ProgressBar;
use models::onnx::Model;
use models::ort_backend::OrtBackend;
use serde_json::json;

use super::{Args, Made, Table};
use crate::output;

pub(super) fn make(
    args: &Args,
    share: f64,
    model: &Model,
    data: (&Items<'_>, &[usize]),
    backend: &OrtBackend,
    bar: &ProgressBar,
) -> Result<Made, CompressError> {
    let options = MaskOptions { share, repair: !args.no_repair };
    let mut tell = |layer: &MaskedLayer| bar.set_message(format!("zeros in {}", layer.weight));
    let (masked, layers) = mask(model, options, data, backend, &mut tell)?;
    let (before, after) = (sent_bytes(model)?, sent_bytes(&masked)?);
    let row = |layer: &MaskedLayer| {
        vec![layer.weight.clone(), format!("{} of {}", layer.zeros, layer.weights)]
    };
    let rows = layers.iter().map(row).collect();
    let sent = format!(
        "sent      {} of {} (both under zstd, {:.2} times less)",
        output::size(after),
        output::size(before),
        before as f64 / after.max(1) as f64
    );
    Ok(Made {
        model: masked,
        table: Table {
            header: &["weights", "zeros"],
            rows,
            empty: "The model has no layer with enough weights",
        },
        lines: vec![format!("zeros     {} of these", output::percent(Some(zeros(&layers)))), sent],
        facts: json!({
            "layers": layers, "zeros": zeros(&layers), "sent_original_bytes": before, "sent_bytes": after,
        }),
    })
}
