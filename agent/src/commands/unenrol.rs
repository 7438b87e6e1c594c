//! `outrigger-agent unenrol`: this device leaves its fleet and keeps its models.

use super::{Irrevocable, confirmed, explain_reset};
use crate::identity::IdentityFiles;
use crate::reset;
use std::process::ExitCode;

pub(crate) fn run(args: &Irrevocable) -> anyhow::Result<ExitCode> {
    let state_dir = args.state_dir.path();
    // A damaged enrolment is a good reason to be here: it only has no name.
    let before = IdentityFiles::new(&state_dir).enrolment().ok().flatten();
    let name = before.as_ref().map_or("this device".to_owned(), |e| e.device.to_string());
    let in_token = IdentityFiles::new(&state_dir).key_uri().ok().flatten();
    confirmed(args.yes, &format!("{name} would lose its key and certificate"))?;
    if !reset::unenrol(&state_dir).map_err(|e| explain_reset(&e))? {
        args.steps.tell("this device is not enrolled", "not-enrolled", name);
        return Ok(ExitCode::SUCCESS);
    }
    let sentence = format!("{name} is no longer enrolled; models and configuration are kept");
    args.steps.tell(&sentence, "unenrolled", name);
    if let Some(uri) = in_token {
        eprintln!("note: its key is still in the token, of no use to a fleet: {uri}");
    }
    if let Some(before) = before {
        eprintln!(
            "note: the cloud at {} was not told; there: outrigger device deny {}",
            before.cloud, before.device
        );
    }
    Ok(ExitCode::SUCCESS)
}
