//! A parser of Prometheus' text format 0.0.4, as strict as the format's description: what it lets
//! pass, Prometheus reads; and Prometheus' own judge.

use crate::debian;
use anyhow::{Context, bail, ensure};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

/// Label names with their values, sorted.
pub type Labels = BTreeMap<String, String>;

/// One scrape.
#[derive(Debug, Default)]
pub struct Scrape {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), f64>,
}

impl Scrape {
    /// Reads a text, and checks that every sample has a family, no sample is there twice, and the
    /// buckets of every histogram grow up to its count.
    ///
    /// # Errors
    /// The line that is wrong.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        ensure!(text.ends_with('\n'), "the last line does not end");
        let mut scrape = Self::default();
        for line in text.lines() {
            scrape.line(line).with_context(|| format!("in the line {line:?}"))?;
        }
        scrape.check_histograms()?;
        Ok(scrape)
    }

    /// The value of one sample.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    fn line(&mut self, line: &str) -> anyhow::Result<()> {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').context("no kind")?;
            ensure!(is_name(name), "not a name");
            ensure!(["counter", "gauge", "histogram"].contains(&kind), "not a kind");
            let twice = self.kinds.insert(name.into(), kind.into()).is_some();
            ensure!(!twice, "a family twice");
            ensure!(kind != "counter" || name.ends_with("_total"), "a counter is named _total");
            return Ok(());
        }
        if line.starts_with("# HELP ") {
            return Ok(());
        }
        let (series, value) = line.rsplit_once(' ').context("no value")?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        ensure!(is_name(name) && self.kind_of(name).is_some(), "a sample without a family");
        let labels = parse_labels(labels.strip_suffix('}').context("no closing brace")?)?;
        let twice = self.samples.insert((name.into(), labels), value.parse()?).is_some();
        ensure!(!twice, "a sample twice");
        Ok(())
    }

    fn kind_of(&self, name: &str) -> Option<&str> {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let histogram = base.and_then(|base| self.kinds.get(base)).filter(|k| *k == "histogram");
        histogram.or_else(|| self.kinds.get(name)).map(String::as_str)
    }

    fn check_histograms(&self) -> anyhow::Result<()> {
        for name in self.kinds.iter().filter(|(_, kind)| *kind == "histogram").map(|(n, _)| n) {
            let of = |end: &str| {
                let name = format!("{name}{end}");
                self.samples.iter().filter(move |((n, _), _)| *n == name)
            };
            for ((_, labels), count) in of("_count") {
                let mut buckets: Vec<(f64, f64)> = Vec::new();
                for ((_, own), value) in of("_bucket") {
                    let mut own = own.clone();
                    let bound = own.remove("le").context("a bucket without le")?;
                    if own == *labels {
                        buckets.push((bound.replace("+Inf", "inf").parse()?, *value));
                    }
                }
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                let grows = buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1);
                let last = buckets.last().context("no buckets")?;
                if !grows || last.0 != f64::INFINITY || last.1 != *count {
                    bail!("the buckets of {name} {labels:?} are {buckets:?}, its count {count}");
                }
                let sum = (format!("{name}_sum"), labels.clone());
                ensure!(self.samples.contains_key(&sum), "{name} has no sum");
            }
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

fn parse_labels(text: &str) -> anyhow::Result<Labels> {
    let mut labels = Labels::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").context("no label value")?;
        ensure!(is_name(name), "{name:?} is not a label's name");
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().context("an open label value")? {
                (at, '"') => break at,
                (_, '\\') => match chars.next().context("a lonely backslash")?.1 {
                    'n' => value.push('\n'),
                    c @ ('\\' | '"') => value.push(c),
                    other => bail!("no escape: {other:?}"),
                },
                (_, c) => value.push(c),
            }
        };
        ensure!(labels.insert(name.into(), value).is_none(), "a label twice");
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Ok(labels)
}

/// Has Prometheus' own tool judge a text, where that can be had.
///
/// # Errors
/// What it does not like.
pub fn judge(text: &[u8]) -> anyhow::Result<()> {
    let Some(promtool) = debian::program("prometheus", "promtool") else { return Ok(()) };
    let mut command = Command::new(promtool);
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("a pipe")?.write_all(text)?;
    let output = child.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_right_and_refuses_what_is_not() {
        let good = "# TYPE a_total counter\na_total{x=\"a\\\"b,c\",y=\"}\"} 3\n";
        let labels = [("x", "a\"b,c"), ("y", "}")];
        assert_eq!(Scrape::parse(good).expect("good").value("a_total", &labels), Some(3.0));
        let histogram = |inf: u32| {
            format!(
                "# TYPE h histogram\nh_bucket{{le=\"1\"}} 2\nh_bucket{{le=\"+Inf\"}} {inf}\nh_sum 1\nh_count 3\n"
            )
        };
        assert!(Scrape::parse(&histogram(3)).is_ok());
        for bad in [
            "a 1\n".into(),
            "# TYPE a gauge\na 1".into(),
            "# TYPE a gauge\na x\n".into(),
            "# TYPE a gauge\na 1\na 2\n".into(),
            "# TYPE a counter\na 1\n".into(),
            "# TYPE a gauge\na{b=\"c} 1\n".into(),
            histogram(1),
            histogram(4),
        ] {
            assert!(Scrape::parse(&bad).is_err(), "{bad}");
        }
    }
}
