//! Commands about devices.

mod ask;
pub(crate) mod check;
pub(crate) mod deny;
pub(crate) mod label;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod remove;
pub(crate) mod show;
pub(crate) mod token;

/// `KEY=VALUE`, as a label is given.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    fleet::labels::check(pair.0, pair.1).map_err(|error| error.to_string())?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}
