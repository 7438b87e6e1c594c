//! Pictures of a report, as SVG inside its page.

use std::fmt::Write;

use super::escaped;
use crate::search::{Options, Outcome};
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
             height=\"{3}\" fill=\"#1b6ca8\"/><text x=\"{4:.1}\" y=\"{1}\">{moved:.5}</text>",
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

/// What a point stands for, and its colour.
const CHOSEN: (&str, &str) = ("chosen", "#3a7d44");
const MEETS: (&str, &str) = ("meets the target", "#1b6ca8");
const MISSES: (&str, &str) = ("loses more", "#d08a2e");
const FLOAT: (&str, &str) = ("float", "#555");
const HEIGHT: f64 = 320.0;
const EDGE: f64 = 50.0;

/// Size to the right, speed upwards; whether the target is met in the colour.
pub(super) fn trials(outcome: &Outcome, options: &Options) -> String {
    let sizes = outcome.trials.iter().map(|trial| trial.size_bytes as f64);
    let widest = sizes.fold(outcome.original.size_bytes as f64, f64::max) * 1.05;
    let fastest = outcome.trials.iter().map(|t| t.latency.speedup).fold(1.0, f64::max) * 1.1;
    let x = |bytes: f64| EDGE + bytes / widest * (WIDTH - 2.0 * EDGE);
    let y = |speed: f64| HEIGHT - EDGE - speed / fastest * (HEIGHT - 2.0 * EDGE);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-size=\"12\" role=\"img\">");
    axes(&mut svg, widest / 1e6, fastest);
    let mut point = |size: f64, speed: f64, title: &str, fill: &str, radius: f64| {
        let _ = write!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\" fill=\"{fill}\" fill-opacity=\"0.75\">\
             <title>{}</title></circle>",
            x(size),
            y(speed),
            escaped(title)
        );
    };
    point(outcome.original.size_bytes as f64, 1.0, "float", FLOAT.1, 6.0);
    for (index, trial) in outcome.trials.iter().enumerate() {
        let (of, radius) = match outcome.choice.trial {
            Some(chosen) if chosen == index => (CHOSEN, 8.0),
            _ if trial.drop <= options.target_drop => (MEETS, 5.0),
            _ => (MISSES, 5.0),
        };
        let title = format!("{}: loses {:.4}", trial.recipe.describe(), trial.drop);
        point(trial.size_bytes as f64, trial.latency.speedup, &title, of.1, radius);
    }
    svg.push_str("</svg>");
    svg
}

/// The axes with what they say, and what the colours mean.
fn axes(svg: &mut String, widest_mb: f64, fastest: f64) {
    let (bottom, right) = (HEIGHT - EDGE, WIDTH - EDGE);
    let _ = write!(
        svg,
        "<path d=\"M{EDGE} {EDGE}V{bottom}H{right}\" fill=\"none\" stroke=\"#888\"/>\
         <text x=\"{right}\" y=\"{0}\" text-anchor=\"end\">{widest_mb:.1} MB</text>\
         <text x=\"{1}\" y=\"{0}\" text-anchor=\"middle\">size</text><text x=\"4\" y=\"{EDGE}\">{fastest:.1}x</text>\
         <text x=\"4\" y=\"{2}\">speed</text>",
        bottom + 18.0,
        WIDTH / 2.0,
        HEIGHT / 2.0
    );
    for (index, (what, fill)) in [FLOAT, CHOSEN, MEETS, MISSES].into_iter().enumerate() {
        let x = EDGE + index as f64 * 150.0;
        let _ = write!(
            svg,
            "<circle cx=\"{x}\" cy=\"20\" r=\"5\" fill=\"{fill}\"/><text x=\"{}\" y=\"24\">{what}</text>",
            x + 10.0
        );
    }
}
