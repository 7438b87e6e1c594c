//! What a search found, for a person: one page without anything from elsewhere.
//!
//! The same facts are in `report.json`. Both can travel in a bundle, whose manifest names them by their hashes.

use std::fmt::Write;

use protocol::measurement::Machine;

use crate::search::{Options, Outcome, Trial};

mod plot;

/// The page's name in the output folder, and in a bundle.
pub const PAGE_FILE: &str = "report.html";
/// The facts' name.
pub const FACTS_FILE: &str = "report.json";

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse;width:100%}\
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}\
th:first-child,td:first-child,.words td{text-align:left;white-space:normal}.words td:first-child{width:16rem}\
.chosen{background:#e7f3e8;font-weight:600}.front td:first-child::after{content:' \\2022'}code{font-size:.85em}\
.words td{overflow-wrap:anywhere}.big{font-size:1.15rem}svg{width:100%;height:auto}small{color:#555}";

/// Text that is safe in a page.
pub(crate) fn escaped(text: &str) -> String {
    let replace = |c: char| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        other => other.to_string(),
    };
    text.chars().map(replace).collect()
}

/// The page.
pub fn page(outcome: &Outcome, options: &Options) -> String {
    let mut page = String::new();
    let name = outcome.original.file.as_str();
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{0}, compressed</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style><h1>{0}, compressed</h1>",
        escaped(name)
    );
    let _ = write!(page, "<p class=\"big\">Chosen: {}.</p>", escaped(&outcome.choice.reason));
    page.push_str(&figures(outcome, options));
    page.push_str(&trials(outcome));
    if let Some(ranking) = outcome.rankings.first() {
        page.push_str("<h2>Which layers suffer</h2><p>Each is quantized alone, all others stay in float; the bar is how far the answers \
                       move. Layers are named by what they give, the worst first.</p>");
        page.push_str(&plot::sensitivity(&ranking.layers));
    }
    page.push_str("<h2>Size and speed of what was tried</h2>");
    page.push_str(&plot::trials(outcome, options));
    page.push_str(&classes(outcome));
    page.push_str(&in_float(outcome));
    page.push_str(&origin(outcome));
    page.push_str("</html>\n");
    page
}

fn row(page: &mut String, class: &str, cells: &[String]) {
    let _ = write!(page, "<tr class=\"{class}\">");
    cells.iter().for_each(|cell| {
        let _ = write!(page, "<td>{}</td>", escaped(cell));
    });
    page.push_str("</tr>");
}

/// A table of words, which are read from the left.
fn words(header: &[&str]) -> String {
    table(header).replacen("<table>", "<table class=\"words\">", 1)
}

fn table(header: &[&str]) -> String {
    let cells: String = header.iter().map(|cell| format!("<th>{}</th>", escaped(cell))).collect();
    format!("<table><tr>{cells}</tr>")
}

fn share(value: f64) -> String {
    format!("{:.2} %", value * 100.0)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.3} MB", bytes as f64 / 1e6)
}

/// The float model beside the chosen one, on data that no choice has seen.
fn figures(outcome: &Outcome, options: &Options) -> String {
    let (float, chosen) = (&outcome.evaluation.float, &outcome.evaluation.chosen);
    let trial = outcome.choice.trial.and_then(|trial| outcome.trials.get(trial));
    let mut page = table(&["", "as it came", "chosen"]);
    let mut line = |what: &str, a: String, b: String| row(&mut page, "", &[what.to_owned(), a, b]);
    line("size", megabytes(outcome.original.size_bytes), megabytes(outcome.compressed.size_bytes));
    if let Some(trial) = trial {
        let us = |value: f64| format!("{value:.0} us");
        line("one run, one thread", us(trial.latency.float_us), us(trial.latency.own_us));
        if let Some(there) = &trial.elsewhere {
            line("the same on the device", us(there.float_us), us(there.own_us));
        }
    }
    line("cosine to float", "1".to_owned(), format!("{:.5}", chosen.cosine));
    let shares = [
        ("same class as float", float.agreement, chosen.agreement),
        ("same line as float", float.lines, chosen.lines),
        ("accuracy", float.accuracy, chosen.accuracy),
    ];
    for (what, float, chosen) in shares {
        if let (Some(float), Some(chosen)) = (float, chosen) {
            line(what, share(float), share(chosen));
        }
    }
    page.push_str("</table>");
    let margin = chosen.margin.map_or_else(String::new, |margin| {
        format!(" The difference is known to &#177; {:.2} points (95 %).", margin * 100.0)
    });
    let _ = write!(
        page,
        "<p><small>On {} items that took part in no choice: {:.3} % lost of at most {:.3} % wanted.{margin}</small></p>",
        chosen.items,
        outcome.evaluation.drop * 100.0,
        options.target_drop * 100.0
    );
    page
}

fn trials(outcome: &Outcome) -> String {
    let mut page = format!("<h2>What was tried ({})</h2>", outcome.trials.len());
    let header =
        ["build", "size", "speed", "on the device", "fused", "cosine", "same", "accuracy", "lost"];
    let cells = |trial: &Trial| {
        let (fused, wanted) = trial.fused.total();
        [
            Some(trial.recipe.describe()),
            Some(megabytes(trial.size_bytes)),
            Some(format!("{:.2}x", trial.latency.speedup)),
            trial.elsewhere.map(|there| format!("{:.2}x", there.speedup)),
            Some(format!("{fused} of {wanted}")),
            Some(format!("{:.5}", trial.quality.cosine)),
            trial.quality.agreement.or(trial.quality.lines).map(share),
            trial.quality.accuracy.map(share),
            Some(format!("{:.3} %", trial.drop * 100.0)),
        ]
    };
    let rows: Vec<_> = outcome.trials.iter().map(cells).collect();
    // What no trial says has no column.
    let is_said = |column: &usize| rows.iter().any(|row| row[*column].is_some());
    let columns: Vec<usize> = (0..header.len()).filter(is_said).collect();
    page.push_str(&table(&columns.iter().map(|column| header[*column]).collect::<Vec<_>>()));
    for (index, cells) in rows.into_iter().enumerate() {
        let class = match outcome.choice.trial {
            Some(chosen) if chosen == index => "chosen",
            _ if outcome.front.contains(&index) => "front",
            _ => "",
        };
        let cell = |column: &usize| cells[*column].clone().unwrap_or_else(|| "-".to_owned());
        row(&mut page, class, &columns.iter().map(cell).collect::<Vec<_>>());
    }
    page.push_str("</table><p><small>&#8226; no other is better in size, speed and quality at once. Lost, and same as float, on the data by which \
                   builds were chosen.</small></p>");
    page
}

fn classes(outcome: &Outcome) -> String {
    if outcome.evaluation.classes.is_empty() {
        return String::new();
    }
    let mut page = "<h2>Accuracy of each class</h2>".to_owned();
    page.push_str(&table(&["class", "items", "as it came", "chosen", "95 % interval"]));
    for class in &outcome.evaluation.classes {
        let chosen = &class.chosen;
        row(
            &mut page,
            "",
            &[
                class.class.to_string(),
                chosen.items.to_string(),
                share(class.float.share),
                share(chosen.share),
                format!("{} to {}", share(chosen.low), share(chosen.high)),
            ],
        );
    }
    page.push_str("</table>");
    page
}

fn in_float(outcome: &Outcome) -> String {
    if outcome.in_float.is_empty() {
        return String::new();
    }
    let mut page = "<h2>What could not become integers</h2>".to_owned();
    page.push_str(&words(&["value", "operator", "why"]));
    for left in &outcome.in_float {
        row(&mut page, "", &[left.output.clone(), left.operator.clone(), left.reason.to_owned()]);
    }
    page.push_str("</table>");
    page
}

/// For which files and which machine all of this holds.
fn origin(outcome: &Outcome) -> String {
    let mut page = "<h2>For what this holds</h2>".to_owned();
    page.push_str(&words(&[]));
    let mut line = |what: &str, says: String| row(&mut page, "", &[what.to_owned(), says]);
    line("SHA-256 as it came", outcome.original.sha256.clone());
    line("SHA-256 compressed", outcome.compressed.sha256.clone());
    let mut machine = |of: &str, machine: &Machine| {
        line(&format!("processor{of}"), machine.processor.clone());
        line(&format!("instructions{of}"), machine.features.join(" "));
        line(&format!("runtime{of}"), machine.runtime.clone());
    };
    machine("", &outcome.machine);
    if let Some(there) = &outcome.elsewhere {
        machine(" of the device", there);
    }
    if let Some(bytes) = outcome.memory_peak_bytes {
        line("most memory of the search", megabytes(bytes));
    }
    page.push_str("</table>");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_the_page() {
        assert_eq!(escaped("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
