//! Accuracy against deferral and against bytes, as SVG.

use anyhow::Context;
use models::calibrate::Example;
use models::confidence::score;
use protocol::manifest::Score;
use std::fmt::Write;
use std::path::Path;

use super::rules::{Outcome, curve, decide, sedna_cross_entropy};
use super::task::Task;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 50.0;
/// Points of a line.
const POINTS: usize = 200;

struct Line {
    name: &'static str,
    colour: &'static str,
    curve: Vec<Outcome>,
}

/// Writes `TASK-deferral.svg` and `TASK-bytes.svg`.
pub(super) fn write(task: &Task, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let lines = lines(task);
    let kinds = [("deferral", "deferred, %", 100.0), ("bytes", "bytes a request", task.item_bytes)];
    for (kind, axis, scale) in kinds {
        let path = folder.join(format!("{}-{kind}.svg", task.name.replace(' ', "-")));
        std::fs::write(&path, drawing(&task.name, axis, scale, &lines))
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("plot: {}", path.display());
    }
    Ok(())
}

fn lines(task: &Task) -> Vec<Line> {
    let test = task.test();
    let by =
        |kind: Score| move |e: &Example| score(kind, &e.logits, 1.0).unwrap_or(f64::NEG_INFINITY);
    let oracle = |e: &Example| match (e.is_error(), e.is_right() && e.cloud != e.truth) {
        (true, _) => 0.0,
        (_, true) => 2.0,
        _ => 1.0,
    };
    let random = vec![decide(test, |_, _| false), decide(test, |_, _| true)];
    let line = |name, colour, curve| Line { name, colour, curve };
    vec![
        line("oracle", "#999999", curve(test, oracle)),
        line("max-softmax (Sedna threshold)", "#1b6ca8", curve(test, by(Score::MaxSoftmax))),
        line("margin", "#c44e28", curve(test, by(Score::Margin))),
        line("Sedna cross-entropy", "#3a8f4d", curve(test, sedna_cross_entropy)),
        line("energy", "#8a5fb0", curve(test, by(Score::Energy))),
        line("random", "#333333", random),
    ]
}

/// Where a value lies between two others.
struct Axis {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        self.start + (value - self.from) / (self.to - self.from) * (self.end - self.start)
    }

    /// Five round steps.
    fn marks(&self) -> impl Iterator<Item = f64> {
        let (from, step) = (self.from, (self.to - self.from) / 5.0);
        (0..=5).map(move |i| from + f64::from(i) * step)
    }
}

fn drawing(name: &str, label: &str, scale: f64, lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| &line.curve).map(|at| at.accuracy * 100.0);
    let (low, high) = (all().fold(100.0, f64::min), all().fold(0.0, f64::max));
    let x = Axis { from: 0.0, to: scale, start: LEFT, end: WIDTH - 20.0 };
    let y = Axis { from: low.floor(), to: high.ceil(), start: HEIGHT - BOTTOM, end: 30.0 };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"18\">{name}: right answers, %, against {label}</text>\n"
    );
    // Writing to a String cannot fail.
    for mark in x.marks() {
        let at = x.at(mark);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"30\" y2=\"{:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{mark:.0}</text>",
            y.start,
            y.start + 20.0
        );
    }
    for mark in y.marks() {
        let at = y.at(mark);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{mark:.1}</text>",
            x.end,
            LEFT - 8.0,
            at + 4.0
        );
    }
    for (index, line) in lines.iter().enumerate() {
        let points = thinned(&line.curve)
            .map(|at| format!("{:.1},{:.1}", x.at(at.deferral * scale), y.at(at.accuracy * 100.0)));
        let points: Vec<String> = points.collect();
        let (colour, key) = (line.colour, y.start - 14.0 - 18.0 * index as f64);
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{key:.1}\" text-anchor=\"end\" fill=\"{colour}\">{}</text>",
            points.join(" "),
            x.end - 8.0,
            line.name
        );
    }
    svg + "</svg>\n"
}

/// Enough of the points, and the last.
fn thinned(curve: &[Outcome]) -> impl Iterator<Item = &Outcome> {
    let step = (curve.len() / POINTS).max(1);
    curve.iter().step_by(step).chain(curve.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_is_well_formed_and_inside() {
        let at = |accuracy, deferral| Outcome { accuracy, deferral };
        let curve = vec![at(0.9, 0.0), at(0.95, 0.5), at(0.94, 1.0)];
        let svg = drawing("t", "deferred, %", 100.0, &[Line { name: "a", colour: "red", curve }]);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("points=\"70.0,390.0 385.0,30.0 700.0,102.0 700.0,102.0\""), "{svg}");
    }
}
