//! `outrigger model push`: build, sign, upload.

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use models::authoring::Author;
use models::backend::Backend;
use protocol::id::{ContentHash, ModelName, Variant, Version};
use protocol::manifest::{Manifest, SigningKey, Thrift, ThriftEffect};
use protocol::tuf::install::target_path;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Bundle, COLUMNS, bundles};
use crate::client::Client;
use crate::config::{Config, SIGNING_KEY};
use crate::errors::hinted;
use crate::output;
use crate::repository::{KeysArgs, name_as_good};
use crate::runtime::RuntimeArgs;

/// Arguments of `model push`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder with model.toml, the ONNX files and the data.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The version; the newest and one when absent.
    #[arg(long, value_name = "N")]
    version: Option<Version>,
    /// Only this variant, edge or cloud; every one that model.toml has when absent.
    #[arg(long, value_name = "VARIANT")]
    variant: Option<Variant>,
    #[command(flatten)]
    runtime: RuntimeArgs,
    #[command(flatten)]
    keys: KeysArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A bundle that was built, with its folder.
struct Built {
    folder: PathBuf,
    manifest: Manifest,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let config = Config::open()?;
    let client = Client::open(&config)?;
    let key = config
        .key(SIGNING_KEY)?
        .ok_or_else(|| hinted("there is no signing key here", "outrigger login makes one"))?;
    let author = Author::open(&args.folder)?;
    let variants = variants(&author, args.variant)?;
    let backend = args.runtime.open()?;
    let version = args.version.map_or_else(|| next(&client, author.name()), Ok)?;
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let built = build(&author, &variants, version, &backend, scratch.path())?;
    upload(&client, &built)?;
    let pushed = built.iter().map(|b| publish(&client, &key, b)).collect::<Result<Vec<_>, _>>()?;
    let path = |m: &Manifest| target_path(&m.model, m.version, m.variant);
    let named = built.iter().map(|b| (path(&b.manifest), b.manifest.to_json())).collect();
    name_as_good(&client, &config, &args.keys, &named)
        .context("it was pushed, but devices will not install it yet")?;
    show(args, &pushed, author.name())
}

/// The cloud variant comes first, so that no device gets an edge variant that cannot defer yet.
fn variants(author: &Author, only: Option<Variant>) -> anyhow::Result<Vec<Variant>> {
    let wanted = |variant: &Variant| only.is_none_or(|only| only == *variant);
    let all = [Variant::Cloud, Variant::Edge].into_iter().filter(wanted);
    let found: Vec<_> = all.filter(|variant| author.has(*variant)).collect();
    if found.is_empty() {
        let what = format!("model.toml of {} has nothing to push", author.name());
        return Err(hinted(what, "add [variants.edge] or [variants.cloud] with its ONNX file"));
    }
    Ok(found)
}

fn next(client: &Client, model: &ModelName) -> anyhow::Result<Version> {
    let bundles = bundles(client)?;
    let versions = bundles.iter().filter(|b| b.model == *model).map(|b| b.version.get());
    Version::new(versions.max().unwrap_or(0) + 1).context("there are no more versions")
}

fn build(
    author: &Author,
    variants: &[Variant],
    version: Version,
    backend: &dyn Backend,
    scratch: &Path,
) -> anyhow::Result<Vec<Built>> {
    let mut built = Vec::new();
    for variant in variants {
        let name = author.name();
        let spinner = ProgressBar::new_spinner();
        spinner.set_message(format!("measuring the {variant} variant of {name}@{version}"));
        spinner.enable_steady_tick(Duration::from_millis(100));
        let folder = scratch.join(variant.as_str());
        let manifest = author.build(*variant, version, backend, &folder);
        spinner.finish_and_clear();
        let what = || format!("cannot build the {variant} variant of {name}");
        let manifest = manifest.with_context(what)?;
        manifest.thrift.iter().for_each(tell_thrift);
        built.push(Built { manifest, folder });
    }
    Ok(built)
}

/// What it saves and costs that inputs travel packed.
#[allow(clippy::cast_precision_loss)] // shares
fn tell_thrift(thrift: &Thrift) {
    let forms =
        thrift.inputs.iter().map(|(input, allowed)| format!("{input} as {}", allowed.transport));
    let ThriftEffect { items, changed, changed_at_most, difference, raw_bytes, sent_bytes } =
        thrift.measured;
    let classes = match (changed, changed_at_most) {
        (Some(changed), Some(most)) => {
            format!(
                "{changed} of {items} answers change class (at most {:.2} % of all), ",
                most * 100.0
            )
        }
        _ => String::new(),
    };
    eprintln!(
        "{}: {classes}numbers move by {difference:.4} at most, {:.1} times fewer bytes",
        forms.collect::<Vec<_>>().join(", "),
        raw_bytes as f64 / sent_bytes.max(1) as f64,
    );
}

/// Uploads the files that the cloud lacks.
fn upload(client: &Client, built: &[Built]) -> anyhow::Result<()> {
    let mut missing: BTreeMap<ContentHash, (PathBuf, u64)> = BTreeMap::new();
    for bundle in built {
        for (name, file) in &bundle.manifest.files {
            if !missing.contains_key(&file.sha256) && !client.has_blob(file.sha256)? {
                missing.insert(file.sha256, (bundle.folder.join(name), file.size_bytes));
            }
        }
    }
    let bar = ProgressBar::new(missing.values().map(|(_, size)| size).sum());
    let style = "uploading {bar:30} {decimal_bytes} of {decimal_total_bytes}, {eta} to go";
    bar.set_style(ProgressStyle::with_template(style)?);
    for (hash, (path, size_bytes)) in missing {
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        client.put_blob(hash, size_bytes, bar.wrap_read(file))?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// Signs a manifest and hands it to the cloud; the bundle as the API lists it.
fn publish(client: &Client, key: &SigningKey, built: &Built) -> anyhow::Result<Value> {
    let manifest = &built.manifest;
    let signed = key.sign(manifest);
    let what = || format!("the cloud does not take the {} variant", manifest.variant);
    client.send::<Value>("POST", "/v1/models", &signed.to_json()).with_context(what)?;
    let calibration = manifest.calibration.as_ref();
    Ok(json!({
        "model": manifest.model,
        "version": manifest.version,
        "variant": manifest.variant,
        "bundle": signed.bundle(),
        "size_bytes": manifest.size_bytes(),
        "threshold": calibration.map(|c| c.threshold),
        "deferral_rate": calibration.map(|c| c.deferral_rate),
        "thrift": manifest.thrift,
    }))
}

fn show(args: &Args, pushed: &[Value], model: &ModelName) -> anyhow::Result<()> {
    if args.json {
        output::json(&Value::from(pushed));
        return Ok(());
    }
    let bundles: Vec<Bundle> = serde_json::from_value(Value::from(pushed))?;
    output::table(&COLUMNS, bundles.iter().map(Bundle::row).collect(), "");
    eprintln!("next: outrigger model assign {model} --all");
    Ok(())
}
