//! Figures as they stand, and how they are said: sums since the program began, so that an export that is
//! lost costs nothing but the moment that it told of.

use prost::Message;

use super::{Resource, Value, attributes, wire};

/// A figure, with all labels that it has.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its name, the same for whoever else reads it.
    pub name: String,
    /// For people.
    pub description: String,
    /// Its values.
    pub data: Data,
}

/// What a figure's values mean.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// They only grow.
    Counter(Vec<Point>),
    /// They are now.
    Gauge(Vec<Point>),
    /// How many were how large.
    Histogram(Vec<Buckets>),
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Names and texts.
    pub labels: Vec<(String, String)>,
    /// Whole where it is.
    pub value: Value,
}

/// How many were how large.
#[derive(Debug, Clone, PartialEq)]
pub struct Buckets {
    /// Names and texts.
    pub labels: Vec<(String, String)>,
    /// The upper bound of each bucket but the last, which has none.
    pub bounds: Vec<f64>,
    /// How many are in each bucket.
    pub counts: Vec<u64>,
    /// All of them together.
    pub sum: f64,
}

/// When figures were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// When counting began, in nanoseconds since 1970.
    pub since_ns: u64,
    /// When it was looked.
    pub now_ns: u64,
}

impl Data {
    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Counter(points) | Self::Gauge(points) => points.len(),
            Self::Histogram(points) => points.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Resource {
    /// The body of an export of these figures.
    pub fn export_metrics(&self, metrics: &[Metric], at: Moment) -> Vec<u8> {
        let metrics = metrics.iter().map(|metric| said(metric, at)).collect();
        let scope_metrics = vec![wire::ScopeMetrics { scope: Some(self.scope()), metrics }];
        let resource = Some(self.to_wire());
        let resource_metrics = vec![wire::ResourceMetrics { resource, scope_metrics }];
        wire::ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
    }
}

fn said(metric: &Metric, at: Moment) -> wire::Metric {
    use wire::metric::Data as Said;
    let aggregation_temporality = wire::AggregationTemporality::Cumulative.into();
    let points = |points: &[Point]| points.iter().map(|point| number(point, at)).collect();
    let data = match &metric.data {
        Data::Counter(of) => Said::Sum(wire::Sum {
            data_points: points(of),
            aggregation_temporality,
            is_monotonic: true,
        }),
        Data::Gauge(of) => Said::Gauge(wire::Gauge { data_points: points(of) }),
        Data::Histogram(of) => Said::Histogram(wire::Histogram {
            data_points: of.iter().map(|point| buckets(point, at)).collect(),
            aggregation_temporality,
        }),
    };
    wire::Metric {
        name: metric.name.clone(),
        description: metric.description.clone(),
        unit: unit(&metric.name).to_owned(),
        data: Some(data),
    }
}

/// What the name says of it, as UCUM has it.
fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    match name {
        _ if name.ends_with("_seconds") => "s",
        _ if name.ends_with("_bytes") => "By",
        _ => "1",
    }
}

fn number(point: &Point, at: Moment) -> wire::NumberDataPoint {
    use wire::number_data_point::Value as Said;
    let value = match &point.value {
        Value::Whole(whole) => Some(Said::AsInt(*whole)),
        Value::Real(real) => Some(Said::AsDouble(*real)),
        Value::Truth(truth) => Some(Said::AsInt((*truth).into())),
        Value::Text(_) => None,
    };
    wire::NumberDataPoint {
        start_time_unix_nano: at.since_ns,
        time_unix_nano: at.now_ns,
        value,
        attributes: labels(&point.labels),
    }
}

fn buckets(point: &Buckets, at: Moment) -> wire::HistogramDataPoint {
    wire::HistogramDataPoint {
        start_time_unix_nano: at.since_ns,
        time_unix_nano: at.now_ns,
        count: point.counts.iter().sum(),
        sum: Some(point.sum),
        bucket_counts: point.counts.clone(),
        explicit_bounds: point.bounds.clone(),
        attributes: labels(&point.labels),
    }
}

fn labels(labels: &[(String, String)]) -> Vec<wire::KeyValue> {
    let valued = |(name, text): &(String, String)| (name.clone(), Value::from(text.clone()));
    attributes(&labels.iter().map(valued).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_export() {
        let labels = vec![("model".to_owned(), "m".to_owned())];
        let metric = |name: &str, data| Metric {
            name: name.to_owned(),
            description: "Some.".to_owned(),
            data,
        };
        let point = |value| vec![Point { labels: labels.clone(), value }];
        let buckets = Buckets {
            labels: labels.clone(),
            bounds: vec![0.1, 1.0],
            counts: vec![1, 0, 2],
            sum: 7.5,
        };
        let metrics = [
            metric("a_total", Data::Counter(point(Value::Whole(3)))),
            metric("b_bytes", Data::Gauge(point(Value::Real(0.5)))),
            metric("c_seconds", Data::Histogram(vec![buckets])),
        ];
        let attributes = vec![("service.name", "outrigger-agent".into())];
        let at = Moment { since_ns: 1, now_ns: 2 };
        let body = Resource { attributes, version: "1" }.export_metrics(&metrics, at);
        insta::assert_snapshot!(hex::encode(body));
    }

    #[test]
    fn units_stand_in_names() {
        let units = ["x_bytes_total", "x_seconds", "x_total", "x"].map(unit);
        assert_eq!(units, ["By", "s", "1", "1"]);
    }
}
