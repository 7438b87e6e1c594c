//! The files that a recipe's steps name: anywhere in the authoring folder, but under a plain name in
//! the bundle.

use std::path::Path;

use protocol::manifest::{MODEL_FILE, Pipeline, Step};

use super::{BuildError, LABELS_FILE, PROBES_FILE};

/// A file of a step.
pub(super) struct StepFile {
    /// Where it is, relative to the authoring folder.
    pub(super) source: String,
    /// What it is called in the bundle.
    pub(super) name: String,
}

/// Gives the files of all steps their names in the bundle.
pub(super) fn rename(pipelines: &mut [Pipeline]) -> Result<Vec<StepFile>, BuildError> {
    let mut files: Vec<StepFile> = Vec::new();
    for step in pipelines.iter_mut().flat_map(|pipeline| &mut pipeline.steps) {
        let Step::Tokenize { file, .. } = step else { continue };
        let source = std::mem::take(file);
        let last = Path::new(&source).file_name().and_then(|name| name.to_str());
        let name = last.unwrap_or_default().to_owned();
        let taken = |other: &StepFile| other.name == name && other.source != source;
        if [MODEL_FILE, LABELS_FILE, PROBES_FILE].contains(&name.as_str())
            || files.iter().any(taken)
        {
            let reason = format!("another file of the bundle is called {name:?}; rename this one");
            return Err(BuildError::Data { file: source, reason });
        }
        file.clone_from(&name);
        if files.iter().all(|other| other.name != name) {
            files.push(StepFile { source, name });
        }
    }
    Ok(files)
}
