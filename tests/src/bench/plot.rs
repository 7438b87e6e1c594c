//! Lines over a plane, as SVG: a linear axis to the right, a logarithmic one upwards.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;
const COLOURS: [&str; 6] = ["#1b6ca8", "#c1440e", "#3a7d44", "#7a4fa3", "#946c00", "#555555"];

/// A picture.
#[derive(Debug, Clone)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// What goes to the right.
    pub x: String,
    /// What goes upwards.
    pub y: String,
    /// A value to the right that is marked, and what it is.
    pub mark: Option<(f64, String)>,
    /// The lines.
    pub series: Vec<Series>,
}

/// Two lines of one subject, one of them dotted.
#[derive(Debug, Clone)]
pub struct Series {
    name: String,
    /// To the right, and both heights.
    points: Vec<(f64, f64, f64)>,
    /// Where it bends.
    pub knee: Option<f64>,
}

impl Series {
    /// Without points.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), points: Vec::new(), knee: None }
    }

    /// A point of each line.
    pub fn add(&mut self, x: f64, dotted: f64, full: f64) {
        self.points.push((x, dotted, full));
    }
}

/// Where values lie on the picture.
struct Scale {
    x_max: f64,
    low: f64,
    high: f64,
}

impl Scale {
    fn of(plot: &Plot) -> Self {
        let points = || plot.series.iter().flat_map(|series| &series.points);
        let x_max = points().map(|p| p.0).fold(1e-9, f64::max) * 1.02;
        let heights = || points().flat_map(|p| [p.1, p.2]).filter(|value| *value > 0.0);
        let low = heights().fold(f64::INFINITY, f64::min).min(1e6).log10().floor();
        let high = heights().fold(low, |most, value| most.max(value.log10())).ceil();
        Self { x_max, low, high: high.max(low + 1.0) }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + value / self.x_max * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let part = (value.max(1e-12).log10() - self.low) / (self.high - self.low);
        HEIGHT - BOTTOM - part.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    }
}

impl Plot {
    /// The picture's text.
    pub fn svg(&self) -> String {
        let scale = Scale::of(self);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        text(
            &mut out,
            LEFT,
            28.0,
            "start",
            &format!("<tspan font-size=\"16\">{}</tspan>", escaped(&self.title)),
        );
        self.axes(&mut out, &scale);
        for (index, series) in self.series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            draw(&mut out, &scale, series, colour);
            let y = TOP + 20.0 + 44.0 * index as f64;
            let x = WIDTH - RIGHT + 20.0;
            line(&mut out, (x, y - 4.0), (x + 24.0, y - 4.0), colour, "");
            text(&mut out, x + 30.0, y, "start", &escaped(&series.name));
            let knee = series.knee.map_or("no knee: never keeps up".to_owned(), |knee| {
                format!("keeps up to {knee:.0}")
            });
            text(&mut out, x + 30.0, y + 16.0, "start", &knee);
        }
        out.push_str("</svg>\n");
        out
    }

    // Writing to a String cannot fail.
    fn axes(&self, out: &mut String, scale: &Scale) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        let mut power = scale.low;
        while power <= scale.high {
            let value = 10f64.powf(power);
            line(out, (LEFT, scale.y(value)), (right, scale.y(value)), "#dddddd", "");
            text(out, LEFT - 8.0, scale.y(value) + 4.0, "end", &format!("{value}"));
            power += 1.0;
        }
        let step = tick(scale.x_max);
        let mut at = 0.0;
        while at <= scale.x_max {
            line(out, (scale.x(at), TOP), (scale.x(at), bottom), "#eeeeee", "");
            text(out, scale.x(at), bottom + 18.0, "middle", &format!("{at}"));
            at += step;
        }
        text(out, f64::midpoint(LEFT, right), HEIGHT - 16.0, "middle", &escaped(&self.x));
        let middle = f64::midpoint(TOP, bottom);
        let _ = writeln!(
            out,
            "<text x=\"18\" y=\"{middle}\" text-anchor=\"middle\" \
             transform=\"rotate(-90 18 {middle})\">{}</text>",
            escaped(&self.y)
        );
        if let Some((value, what)) = self.mark.as_ref().filter(|(value, _)| *value <= scale.x_max) {
            let x = scale.x(*value);
            line(out, (x, TOP), (x, bottom), "#888888", "6 4");
            text(out, x - 4.0, TOP + 12.0, "end", &escaped(what));
        }
    }
}

fn draw(out: &mut String, scale: &Scale, series: &Series, colour: &str) {
    for (dashes, height) in [("2 4", 0), ("", 1)] {
        let of = |p: &(f64, f64, f64)| if height == 0 { p.1 } else { p.2 };
        let shown = series.points.iter().filter(|p| of(p) > 0.0);
        let points: Vec<String> =
            shown.map(|p| format!("{:.1},{:.1}", scale.x(p.0), scale.y(of(p)))).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
             stroke-dasharray=\"{dashes}\"/>",
            points.join(" ")
        );
    }
    let knee = series.points.iter().find(|p| series.knee == Some(p.0));
    if let Some((x, _, full)) = knee {
        let (x, y) = (scale.x(*x), scale.y(*full));
        let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"6\" fill=\"{colour}\"/>");
    }
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, dashes: &str) {
    let _ = writeln!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" \
         stroke-dasharray=\"{dashes}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A round step that makes about eight of them.
fn tick(range: f64) -> f64 {
    let rough = range / 8.0;
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= rough).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_and_its_knee_are_drawn_inside() {
        let mut series = Series::new("a < b");
        series.add(100.0, 1.0, 5.0);
        series.add(200.0, 2.0, 500.0);
        series.knee = Some(100.0);
        let plot = Plot {
            title: "t".into(),
            x: "x".into(),
            y: "y".into(),
            mark: Some((150.0, "m".into())),
            series: vec![series, Series::new("none")],
        };
        let svg = plot.svg();
        assert_eq!(svg.matches("<polyline").count(), 4, "{svg}");
        assert_eq!(svg.matches("<circle").count(), 1);
        assert!(svg.contains("a &lt; b") && svg.contains("keeps up to 100"), "{svg}");
        let scale = Scale::of(&plot);
        for (x, y) in [(100.0, 1.0), (200.0, 500.0)] {
            assert!((LEFT..=WIDTH - RIGHT).contains(&scale.x(x)));
            assert!((TOP..=HEIGHT - BOTTOM).contains(&scale.y(y)));
        }
        assert!(scale.y(500.0) < scale.y(1.0), "more is higher");
    }
}
