//! Pictures of a report, as SVG inside its page.

use std::fmt::Write;

use super::escaped;
use crate::search::Outcome;
use crate::sensitivity::Ranking;

const WIDTH: f64 = 900.0;
/// The most layers that are drawn; the others suffer less.
const LAYERS_MAX: usize = 40;
const BAR: f64 = 18.0;
const NAMES: f64 = 330.0;

/// How far the answers move when a layer alone is quantized, worst first.
pub(super) fn sensitivity(ranking: &Ranking) -> String {
    let shown = &ranking[..ranking.len().min(LAYERS_MAX)];
    let most = shown.iter().map(|(_, moved)| *moved).fold(1e-12, f64::max);
    let height = shown.len() as f64 * BAR + 10.0;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" font-size=\"11\" role=\"img\">");
    for (index, (layers, moved)) in shown.iter().enumerate() {
        let (y, length) = (index as f64 * BAR, moved.max(0.0) / most * (WIDTH - NAMES - 90.0));
        let name = layers.first().map_or("", String::as_str);
        let name: String =
            name.chars().rev().take(52).collect::<Vec<_>>().into_iter().rev().collect();
        let _ = write!(
            svg,
            "<text x=\"{0}\" y=\"{1}\" text-anchor=\"end\">{2}</text><rect x=\"{NAMES}\" y=\"{y}\" width=\"{length:.1}\" \
             height=\"{3}\" fill=\"#1b6ca8\"/><text x=\"{4:.1}\" y=\"{1}\">{moved:.2e}</text>",
            NAMES - 8.0,
            y + BAR * 0.68,
            escaped(&name),
            BAR - 4.0,
            NAMES + length + 6.0
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Size to the right, speed upwards, what was lost in the colour.
pub(super) fn trials(outcome: &Outcome) -> String {
    const HEIGHT: f64 = 320.0;
    const EDGE: f64 = 50.0;
    let sizes = outcome.trials.iter().map(|trial| trial.size_bytes as f64);
    let widest = sizes.fold(outcome.original.size_bytes as f64, f64::max) * 1.05;
    let fastest = outcome.trials.iter().map(|t| t.latency.speedup).fold(1.0, f64::max) * 1.1;
    let x = |bytes: f64| EDGE + bytes / widest * (WIDTH - 2.0 * EDGE);
    let y = |speed: f64| HEIGHT - EDGE - speed / fastest * (HEIGHT - 2.0 * EDGE);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-size=\"12\" role=\"img\"><path d=\"M{EDGE} {EDGE}V{0}H{1}\" \
         fill=\"none\" stroke=\"#888\"/><text x=\"{1}\" y=\"{2}\" text-anchor=\"end\">{3:.1} MB</text>\
         <text x=\"4\" y=\"{4}\">{fastest:.1}x</text>",
        HEIGHT - EDGE,
        WIDTH - EDGE,
        HEIGHT - EDGE + 18.0,
        widest / 1e6,
        EDGE
    );
    let mut point = |size: f64, speed: f64, title: &str, fill: &str, radius: f64| {
        let _ = write!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\" fill=\"{fill}\"><title>{}</title></circle>",
            x(size),
            y(speed),
            escaped(title)
        );
    };
    point(outcome.original.size_bytes as f64, 1.0, "float", "#555", 6.0);
    for (index, trial) in outcome.trials.iter().enumerate() {
        let chosen = outcome.choice.trial == Some(index);
        let fill = if chosen { "#3a7d44" } else { "#1b6ca8" };
        let title = format!("{}: loses {:.4}", trial.recipe.describe(), trial.drop);
        let radius = if chosen { 8.0 } else { 5.0 };
        point(trial.size_bytes as f64, trial.latency.speedup, &title, fill, radius);
    }
    svg.push_str("</svg>");
    svg
}
