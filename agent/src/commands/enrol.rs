//! `outrigger-agent enrol`: this device joins a fleet.

use super::steps::Steps;
use super::{StateDir, hinted};
use crate::clock::Clock;
use crate::config::Config;
use crate::identity::{Enrolment, IdentityError, IdentityFiles};
use crate::key::uri::{InvalidUri, KeyUri};
use crate::uplink::enrol::{EnrolError, enrol};
use crate::uplink::{UplinkError, Way};
use anyhow::Context;
use protocol::token::Token;
use serde_json::json;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `enrol`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The cloud to join.
    #[arg(long, value_name = "HOST:PORT")]
    cloud: String,
    /// A file with the one-time token, or - for standard input. (Never on the command line:
    /// everybody on this machine could read it there.)
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// Have the device's key in a token (TPM, smart card, HSM), by its PKCS#11 URI; it is made there where
    /// there is none. The PIN is in the file that the URI names (pin-source=file:/PATH).
    #[arg(long, value_name = "URI", value_parser = read_uri)]
    key: Option<KeyUri>,
    /// Enrol again, in another fleet or under another name, although this device is enrolled.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    state_dir: StateDir,
    #[command(flatten)]
    steps: Steps,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let state_dir = args.state_dir.path();
    let files = IdentityFiles::new(&state_dir);
    if let Some(before) = files.enrolment()?
        && !args.replace
    {
        let what =
            format!("this device is enrolled already, as {} at {}", before.device, before.cloud);
        return Err(hinted(what, "to enrol it again all the same: --replace"));
    }
    if let Some(uri) = &args.key {
        let key = files.use_token(uri).map_err(|e| explain_key(&e))?;
        args.steps.tell(&format!("the device's key is {}", key.place()), "key", key.place());
    }
    join(&files, &args.cloud, &args.token_file, &args.steps)?;
    eprintln!("next: outrigger-agent run --state-dir {}", state_dir.display());
    Ok(ExitCode::SUCCESS)
}

fn read_uri(text: &str) -> Result<KeyUri, String> {
    text.parse().map_err(|e: InvalidUri| format!("{e} (hint: {})", e.hint()))
}

fn explain_key(error: &IdentityError) -> anyhow::Error {
    hinted(protocol::problem::chain(error), error.hint())
}

/// Enrols this device and says so.
pub(super) fn join(
    files: &IdentityFiles,
    cloud: &str,
    token_file: &Path,
    steps: &Steps,
) -> anyhow::Result<Enrolment> {
    let token = read_token(token_file)?;
    let config = Config::read(&files.folder().join("agent.toml"))?;
    let way = Way::new(cloud.parse()?, &config.link);
    let clock = Clock::fresh(files.folder(), token.ca_hash);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let enrolment =
        runtime.block_on(enrol(files, &way, &token, &clock)).map_err(|e| explain(&e))?;
    let Enrolment { device, cloud, .. } = &enrolment;
    let subject = json!({ "device": device, "cloud": cloud });
    steps.tell(&format!("enrolled as {device} at {cloud}"), "enrolled", subject);
    if enrolment.signers().is_empty() {
        eprintln!("note: no operator has a signing key yet, so nothing can be installed here.");
        eprintln!("      After \"outrigger login\", enrol again with a fresh token and --replace.");
    }
    Ok(enrolment)
}

fn read_token(path: &Path) -> anyhow::Result<Token> {
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin()
            .take(4096)
            .read_to_string(&mut text)
            .context("cannot read standard input")?;
    } else {
        let file =
            std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        file.take(4096)
            .read_to_string(&mut text)
            .with_context(|| format!("cannot read {}", path.display()))?;
    }
    text.parse().map_err(|e: protocol::token::InvalidToken| {
        hinted(e.to_string(), "a fresh one comes from: outrigger device token")
    })
}

fn explain(error: &EnrolError) -> anyhow::Error {
    let hint = match error {
        EnrolError::WrongCa(_) => {
            "is this the right address? If the cloud was set up anew, ask for a new token"
        }
        EnrolError::Silent(_) | EnrolError::Uplink(UplinkError::Connection(_)) => {
            "is the port open for UDP or TCP, and is outrigger-cloud running there?"
        }
        EnrolError::Uplink(error @ (UplinkError::Time(_) | UplinkError::Dial(_))) => error.hint(),
        EnrolError::Identity(error) => error.hint(),
        EnrolError::Refused(problem) => {
            return hinted(format!("the cloud refused: {}", problem.message), problem.hint.clone());
        }
        _ => "",
    };
    hinted(protocol::problem::chain(error), hint)
}
