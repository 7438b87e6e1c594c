//! Where a token goes that was just made: to a file that only the operator can read, or to stdout.

use std::path::Path;

use crate::config::write_private;
use crate::errors::hinted;
use crate::output;

/// Hands a token out; the name of its file, for what a person types next.
pub(crate) fn hand_out(token: &str, file: Option<&Path>) -> anyhow::Result<String> {
    let Some(path) = file else {
        output::line(token);
        return Ok("FILE".to_owned());
    };
    write_private(path, format!("{token}\n").as_bytes()).map_err(|error| {
        hinted(format!("{error:#}"), "the token is lost; make another with -o elsewhere")
    })?;
    Ok(path.display().to_string())
}
