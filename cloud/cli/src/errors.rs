//! Errors at the edge of the program: what happened, why, and what the person can do now.

use std::fmt;

/// A failure with a hint.
#[derive(Debug)]
pub(crate) struct Hinted {
    what: String,
    hint: String,
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Hinted {}

/// A failure that says what the person can do now; an empty hint is not shown.
pub(crate) fn hinted(what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted { what: what.into(), hint: hint.into() }.into()
}

/// Prints an error with its causes, and its hint, to stderr.
pub(crate) fn report(error: &anyhow::Error) {
    eprintln!("error: {}", causes(error));
    if let Some(hint) = hint(error) {
        eprintln!("hint: {hint}");
    }
}

/// The same as one text.
pub(crate) fn in_words(error: &anyhow::Error) -> String {
    let hint = hint(error).map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
    format!("{}{hint}", causes(error))
}

/// What happened and why, in one line. A cause that its effect has told already is not said again.
fn causes(error: &anyhow::Error) -> String {
    let mut texts = error.chain().map(ToString::to_string);
    let first = texts.next().unwrap_or_default();
    texts.fold(
        first,
        |said, cause| {
            if said.ends_with(&cause) { said } else { format!("{said}: {cause}") }
        },
    )
}

fn hint(error: &anyhow::Error) -> Option<&str> {
    let hinted = error.chain().find_map(|cause| cause.downcast_ref::<Hinted>())?;
    Some(hinted.hint.as_str()).filter(|hint| !hint.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cause_is_said_twice() {
        let error = anyhow::anyhow!("too large").context("item 3: too large");
        let error = error.context("cannot push");
        assert_eq!(in_words(&error), "cannot push: item 3: too large");
        let error = hinted("no", "ask").context("cannot push");
        assert_eq!(in_words(&error), "cannot push: no (hint: ask)");
    }
}
