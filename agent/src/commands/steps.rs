//! What a command changed, step by step: a sentence for a person, an object for a script.

use serde::Serialize;
use serde_json::json;
use std::path::Path;

/// How steps are told.
#[derive(clap::Args)]
pub(super) struct Steps {
    /// Tell each step as one JSON object on a line, for scripts.
    #[arg(long)]
    json: bool,
}

impl Steps {
    /// Tells a step when it is done: in words, or under its name with what it was done to.
    pub(super) fn tell(&self, sentence: &str, step: &str, subject: impl Serialize) {
        match self.json {
            true => println!("{}", json!({ "step": step, "subject": subject })),
            false => println!("{sentence}"),
        }
    }

    /// A file was written.
    pub(super) fn wrote(&self, path: &Path) {
        self.tell(&format!("wrote {}", path.display()), "wrote", path);
    }

    /// A file or a folder was removed.
    pub(super) fn removed(&self, path: &Path) {
        self.tell(&format!("removed {}", path.display()), "removed", path);
    }
}
