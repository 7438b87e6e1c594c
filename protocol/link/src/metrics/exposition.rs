//! Prometheus' text format 0.0.4: families with HELP and TYPE, samples with escaped labels.

use std::fmt::{Display, Write};

/// What a family's samples mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It is now.
    Gauge,
    /// Buckets, a sum and a count.
    Histogram,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A text that grows by families.
#[derive(Debug, Default)]
pub struct Exposition(String);

/// The family whose samples are being written.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: String,
}

impl Exposition {
    /// Begins a family. Each name is used once.
    pub fn family(&mut self, name: &str, help: &str, kind: Kind) -> Family<'_> {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str());
        Family { text: &mut self.0, name: name.to_owned() }
    }

    /// The text.
    pub fn finish(self) -> String {
        self.0
    }
}

// Writing to a String cannot fail.
impl Family<'_> {
    /// One sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.suffixed("", labels, value);
    }

    /// One sample of a histogram: `_bucket`, `_sum` or `_count`.
    pub fn suffixed(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        for (index, (name, text)) in labels.iter().enumerate() {
            let sign = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{sign}{name}=\"{}\"", escaped(text));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_the_format_says() {
        let mut out = Exposition::default();
        let mut family = out.family("a_total", "Things\nseen.", Kind::Counter);
        family.sample(&[], 1);
        family.sample(&[("x", "a\"b\\c\nd"), ("y", "")], 0.5);
        let expected = "# HELP a_total Things\\nseen.\n# TYPE a_total counter\na_total 1\n\
                        a_total{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 0.5\n";
        assert_eq!(out.finish(), expected);
    }
}
