//! What is written down of the agent's programs: `program.json` in the state folder, replaced as a whole.

use ::link::durable::{self, Access};
use edge::takeover::Takeover;
use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "program.json";
/// What cannot be read is kept for whoever wants to know.
const DAMAGED: &str = "program.json.damaged";

/// The record could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the record of the agent's programs cannot be kept in {}", path.display())]
pub(crate) struct RecordError {
    path: PathBuf,
    source: io::Error,
}

/// Where it is.
pub(super) struct Record(PathBuf);

impl Record {
    pub(super) fn of(state_dir: &Path) -> Self {
        Self(state_dir.join(FILE))
    }

    pub(super) fn exists(&self) -> bool {
        self.0.exists()
    }

    /// What it says. One that is damaged says nothing any more: then the installed program runs.
    pub(super) fn read(&self) -> Result<Takeover, RecordError> {
        let bytes = match std::fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Takeover::default()),
            Err(error) => return Err(self.failed(error)),
        };
        if let Ok(takeover) = serde_json::from_slice(&bytes) {
            return Ok(takeover);
        }
        durable::rename(&self.0, &self.0.with_file_name(DAMAGED)).map_err(|e| self.failed(e))?;
        let note = format!("the record of the agent's programs was damaged; it is in {DAMAGED}");
        Ok(Takeover { note, ..Takeover::default() })
    }

    pub(super) fn write(&self, takeover: &Takeover) -> Result<(), RecordError> {
        let json = serde_json::to_vec_pretty(takeover).expect("names and numbers are always JSON");
        durable::write(&self.0, &json, Access::Public).map_err(|error| self.failed(error))
    }

    fn failed(&self, source: io::Error) -> RecordError {
        RecordError { path: self.0.clone(), source }
    }
}
