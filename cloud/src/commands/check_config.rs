//! `outrigger-cloud check-config`: which settings hold, and where each comes from.
//!
//! It starts nothing and changes nothing. Exit code 0: `serve` would take these settings; 1: it would
//! refuse them; 2: the command line is wrong.

use outrigger_cloud::settings::layers::{self, Effective, Loaded};
use serde_json::json;
use std::process::ExitCode;

use super::{SettingFlags, complain};

/// Arguments of `check-config`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: SettingFlags,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let json = args.json;
    Ok(match layers::load(&args.settings.sources()) {
        Ok(loaded) => {
            print!("{}", if json { as_json(&loaded)? } else { as_text(&loaded) });
            ExitCode::SUCCESS
        }
        Err(findings) => {
            if json {
                let report = json!({ "valid": false, "findings": findings });
                println!("{}", serde_json::to_string_pretty(&report)?);
            } else {
                complain(&findings);
            }
            ExitCode::FAILURE
        }
    })
}

fn as_json(loaded: &Loaded) -> anyhow::Result<String> {
    let file = loaded.file.as_ref().map(|path| path.display().to_string());
    let report = json!({ "valid": true, "file": file, "settings": loaded.values });
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}

/// As a file would have it, with the origin of each value beside it.
fn as_text(loaded: &Loaded) -> String {
    let setting = |value: &Effective| {
        let (section, key) = value.key.rsplit_once('.').unwrap_or(("", &value.key));
        (section.to_owned(), format!("{key} = {}", value.value), value.origin.to_string())
    };
    let settings: Vec<_> = loaded.values.iter().map(setting).collect();
    let width = settings.iter().map(|(_, text, _)| text.len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut last = "";
    for (section, setting, origin) in &settings {
        if section != last {
            let gap = if last.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}[{section}]\n"));
            last = section;
        }
        text.push_str(&format!("{setting:width$}  # {origin}\n"));
    }
    text
}
