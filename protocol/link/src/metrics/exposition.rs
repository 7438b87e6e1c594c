//! Families of figures, and Prometheus' text format 0.0.4 of them: HELP and TYPE, samples with escaped
//! labels. The same families go to a collector ([`Exposition::into_metrics`]), so that nothing is counted twice.

use protocol::otlp::{Buckets, Data, Metric, Point, Value};
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

/// Families that are being gathered.
#[derive(Debug, Default)]
pub struct Exposition(Vec<Gathered>);

#[derive(Debug)]
struct Gathered {
    name: String,
    help: String,
    kind: Kind,
    samples: Vec<Sample>,
    histograms: Vec<Buckets>,
}

type Labels = Vec<(String, String)>;

#[derive(Debug)]
struct Sample {
    labels: Labels,
    value: String,
}

/// The family whose samples are being gathered.
#[derive(Debug)]
pub struct Family<'a>(&'a mut Gathered);

impl Exposition {
    /// Begins a family. Each name is used once.
    pub fn family(&mut self, name: &str, help: &str, kind: Kind) -> Family<'_> {
        let (name, help) = (name.to_owned(), help.to_owned());
        let (samples, histograms) = (Vec::new(), Vec::new());
        self.0.push(Gathered { name, help, kind, samples, histograms });
        let last = self.0.len() - 1;
        Family(&mut self.0[last])
    }

    /// The text.
    pub fn finish(self) -> String {
        let mut text = String::new();
        for family in &self.0 {
            family.write(&mut text);
        }
        text
    }

    /// The same for a collector. Families without samples are left out.
    pub fn into_metrics(self) -> Vec<Metric> {
        let metrics = self.0.into_iter().map(Gathered::into_metric);
        metrics.filter(|metric| !metric.data.is_empty()).collect()
    }
}

impl Family<'_> {
    /// One sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.0.samples.push(Sample { labels: owned(labels), value: value.to_string() });
    }

    /// A histogram: `counts` has one bucket more than there are bounds, and is not accumulated.
    pub fn histogram(
        &mut self,
        labels: &[(&str, &str)],
        bounds: Vec<f64>,
        counts: Vec<u64>,
        sum: f64,
    ) {
        self.0.histograms.push(Buckets { labels: owned(labels), bounds, counts, sum });
    }
}

fn owned(labels: &[(&str, &str)]) -> Labels {
    labels.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

// Writing to a String cannot fail.
impl Gathered {
    fn write(&self, text: &mut String) {
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = self.help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(text, "# HELP {} {help}\n# TYPE {} {kind}", self.name, self.name);
        for Sample { labels, value } in &self.samples {
            self.line(text, "", (labels, None), value);
        }
        for histogram in &self.histograms {
            self.write_histogram(text, histogram);
        }
    }

    fn write_histogram(&self, text: &mut String, histogram: &Buckets) {
        let Buckets { labels, bounds, counts, sum } = histogram;
        let mut count = 0;
        let bounds = bounds.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (bound, bucket) in bounds.zip(counts) {
            count += bucket;
            self.line(text, "_bucket", (labels, Some(&bound)), count);
        }
        self.line(text, "_sum", (labels, None), sum);
        self.line(text, "_count", (labels, None), count);
    }

    fn line(
        &self,
        text: &mut String,
        suffix: &str,
        (labels, bound): (&Labels, Option<&String>),
        value: impl Display,
    ) {
        let _ = write!(text, "{}{suffix}", self.name);
        let labels = labels.iter().map(|(name, text)| (name.as_str(), text));
        let mut sign = '{';
        for (name, said) in labels.chain(bound.map(|bound| ("le", bound))) {
            let _ = write!(text, "{sign}{name}=\"{}\"", escaped(said));
            sign = ',';
        }
        let end = if sign == ',' { "}" } else { "" };
        let _ = writeln!(text, "{end} {value}");
    }

    fn into_metric(self) -> Metric {
        let points = || self.samples.into_iter().filter_map(Sample::into_point).collect();
        let data = match self.kind {
            Kind::Counter => Data::Counter(points()),
            Kind::Gauge => Data::Gauge(points()),
            Kind::Histogram => Data::Histogram(self.histograms),
        };
        Metric { name: self.name, description: self.help, data }
    }
}

impl Sample {
    /// Nothing of what is no number, and of what no collector can add up.
    fn into_point(self) -> Option<Point> {
        let whole = self.value.parse().map(Value::Whole).ok();
        let real = || self.value.parse().ok().filter(|real: &f64| real.is_finite());
        let value = whole.or_else(|| real().map(Value::Real))?;
        Some(Point { labels: self.labels, value })
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered() -> Exposition {
        let mut out = Exposition::default();
        let mut family = out.family("a_total", "Things\nseen.", Kind::Counter);
        family.sample(&[], 1);
        family.sample(&[("x", "a\"b\\c\nd"), ("y", "")], 0.5);
        let mut family = out.family("h", "", Kind::Histogram);
        family.histogram(&[("m", "n")], vec![0.5], vec![1, 2], 7.25);
        out.family("empty", "", Kind::Gauge);
        out
    }

    #[test]
    fn written_as_the_format_says() {
        let expected = "# HELP a_total Things\\nseen.\n# TYPE a_total counter\na_total 1\n\
                        a_total{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 0.5\n\
                        # HELP h \n# TYPE h histogram\nh_bucket{m=\"n\",le=\"0.5\"} 1\n\
                        h_bucket{m=\"n\",le=\"+Inf\"} 3\nh_sum{m=\"n\"} 7.25\nh_count{m=\"n\"} 3\n\
                        # HELP empty \n# TYPE empty gauge\n";
        assert_eq!(gathered().finish(), expected);
    }

    #[test]
    fn a_collector_is_told_the_same() {
        let [counter, histogram] = gathered().into_metrics().try_into().unwrap();
        let Data::Counter(points) = counter.data else { panic!("{counter:?}") };
        let values: Vec<_> = points.iter().map(|point| point.value.clone()).collect();
        assert_eq!(values, [Value::Whole(1), Value::Real(0.5)]);
        assert_eq!(points[1].labels[0], ("x".to_owned(), "a\"b\\c\nd".to_owned()));
        let labels = vec![("m".to_owned(), "n".to_owned())];
        let buckets = Buckets { labels, bounds: vec![0.5], counts: vec![1, 2], sum: 7.25 };
        assert_eq!(histogram.data, Data::Histogram(vec![buckets]));
    }
}
