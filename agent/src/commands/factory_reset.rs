//! `outrigger-agent factory-reset`: nothing is left in the state folder.

use super::{Irrevocable, confirmed, explain_reset};
use crate::reset;
use std::process::ExitCode;

pub(crate) fn run(args: &Irrevocable) -> anyhow::Result<ExitCode> {
    let state_dir = args.state_dir.path();
    let place = state_dir.display();
    confirmed(
        args.yes,
        &format!("everything in {place} would be removed: identity, models, configuration"),
    )?;
    let removed = reset::factory_reset(&state_dir).map_err(|e| explain_reset(&e))?;
    let now = if removed == 0 { "holds nothing" } else { "is empty now" };
    args.steps.tell(&format!("{place} {now}"), "emptied", &state_dir);
    Ok(ExitCode::SUCCESS)
}
