//! `outrigger agent push`.

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use protocol::id::ContentHash;
use protocol::manifest::FileRef;
use protocol::release::{FORMAT, Mark, Release, ReleaseVersion};
use serde_json::Value;
use std::path::PathBuf;

use crate::client::Client;
use crate::config::{Config, SIGNING_KEY};
use crate::errors::hinted;
use crate::output;
use crate::repository::{KeysArgs, name_as_good};

/// Arguments of `agent push`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The program outrigger-agent; it says itself which version it is, and for which machines.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Refuse a file of another version.
    #[arg(long, value_name = "X.Y.Z")]
    version: Option<ReleaseVersion>,
    /// Devices that run this one well take nothing older than this afterwards.
    #[arg(long, value_name = "X.Y.Z")]
    oldest: Option<ReleaseVersion>,
    #[command(flatten)]
    keys: KeysArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let config = Config::open()?;
    let client = Client::open(&config)?;
    let key = config
        .key(SIGNING_KEY)?
        .ok_or_else(|| hinted("there is no signing key here", "outrigger login makes one"))?;
    let shown = args.file.display();
    let program = std::fs::read(&args.file).with_context(|| format!("cannot read {shown}"))?;
    let release = release(args, &program)?;
    upload(&client, &release.program, &program)?;
    let signed = release.sign(&key);
    let what = "the cloud does not take this release";
    let answer: Value =
        client.send("POST", "/v1/agent/releases", &signed.to_json()).context(what)?;
    let named = [(release.path(), signed.release.into_bytes())].into();
    name_as_good(&client, &config, &args.keys, &named)
        .context("it was pushed, but devices will not install it yet")?;
    match args.json {
        true => output::json(&answer),
        false => show(&release),
    }
    Ok(())
}

/// What a file is, as it says itself.
fn release(args: &Args, program: &[u8]) -> anyhow::Result<Release> {
    let shown = args.file.display();
    let Mark { version, target } = Mark::find(program).map_err(|error| {
        let hint = "the program is target/release/outrigger-agent, or /usr/bin/outrigger-agent of a package";
        hinted(format!("{shown}: {error}"), hint)
    })?;
    if let Some(other) = args.version.filter(|wanted| *wanted != version) {
        let hint = "the version is that of its Cargo.toml when it was built";
        return Err(hinted(format!("{shown} is version {version}, not {other}"), hint));
    }
    if let Some(oldest) = args.oldest.filter(|oldest| *oldest > version) {
        let what = format!("after version {version} nothing older than {oldest} could run");
        return Err(hinted(what, "--oldest is at most the version itself"));
    }
    let size_bytes = program.len() as u64;
    let program = FileRef { sha256: ContentHash::of(program), size_bytes };
    Ok(Release { format: FORMAT, version, target, program, oldest: args.oldest })
}

fn upload(client: &Client, file: &FileRef, program: &[u8]) -> anyhow::Result<()> {
    if client.has_blob(file.sha256)? {
        return Ok(());
    }
    let bar = ProgressBar::new(file.size_bytes);
    let style = "uploading {bar:30} {decimal_bytes} of {decimal_total_bytes}, {eta} to go";
    bar.set_style(ProgressStyle::with_template(style)?);
    client.put_blob(file.sha256, file.size_bytes, bar.wrap_read(program))?;
    bar.finish_and_clear();
    Ok(())
}

fn show(release: &Release) {
    let Release { version, target, program, oldest, .. } = release;
    let oldest = oldest.map_or("-".to_owned(), |oldest| oldest.to_string());
    let row = vec![version.to_string(), target.clone(), output::size(program.size_bytes), oldest];
    output::table(&["version", "target", "size", "oldest after it"], vec![row], "");
    eprintln!("next: outrigger agent assign {version} --all, or first --device ID");
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::release::mark;

    fn args(version: Option<&str>, oldest: Option<&str>) -> Args {
        let parse = |text: &str| text.parse().unwrap();
        let (version, oldest) = (version.map(parse), oldest.map(parse));
        let (file, keys, json) = ("agent".into(), KeysArgs::default(), false);
        Args { file, version, oldest, keys, json }
    }

    #[test]
    fn a_file_is_what_it_says() {
        let mut program = b"\x7fELF\x02\x01\x01".to_vec();
        program.resize(64, 0);
        program[18] = 62;
        program.extend(mark("0.2.0", "x86_64-unknown-linux-gnu"));
        let check = |version, oldest| release(&args(version, oldest), &program);
        let found = check(None, Some("0.1.9")).unwrap();
        assert_eq!((found.version.to_string(), found.program.size_bytes), ("0.2.0".into(), 192));
        assert_eq!(found.program.sha256, ContentHash::of(&program));
        for (version, oldest) in [(Some("0.3.0"), None), (None, Some("0.2.1"))] {
            check(version, oldest).unwrap_err();
        }
        release(&args(None, None), b"#!/bin/sh").unwrap_err();
    }
}
