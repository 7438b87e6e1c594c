//! A bundle on disk: a folder with the files that a verified manifest lists. Every file's length
//! and SHA-256 are checked before anything in it is believed, and a folder that holds more than
//! the manifest lists is refused, because an ONNX file may refer to its neighbours.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use prost::Message;
use protocol::id::Hasher;
use protocol::manifest::{FileRef, MODEL_FILE, Manifest, Step};
use protocol::problem::Problem;
use protocol::tensor::Tensor;
use protocol::wire::ProbeSet;

use crate::preprocess::StepFiles;

/// The one file that may stand in a bundle's folder unlisted: its own manifest, signed.
pub const MANIFEST_FILE: &str = "manifest.json";
/// The file of labels: 4 MiB.
pub const LABELS_MAX_BYTES: u64 = 4 << 20;
/// A file that a step reads, such as a tokenizer: 64 MiB.
pub const STEP_FILE_MAX_BYTES: u64 = 64 << 20;
/// The file of probes: 256 MiB.
pub const PROBES_MAX_BYTES: u64 = 256 << 20;
/// Probes in one bundle.
pub const PROBES_MAX_COUNT: usize = 1024;

/// Why a bundle is refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A listed file is not there, or is no plain file.
    #[error("the bundle's file {0:?} is missing")]
    Missing(String),
    /// A file that the manifest does not list.
    #[error("the bundle's folder holds {0:?}, which its manifest does not list")]
    Unlisted(String),
    /// The system failed to read.
    #[error("cannot read {path}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file of another length: truncated or padded.
    #[error("the bundle's file {file:?} has {actual} bytes, not {expected}")]
    Size {
        /// The file.
        file: String,
        /// What the manifest says.
        expected: u64,
        /// What is there.
        actual: u64,
    },
    /// A file of the right length with other bytes.
    #[error("the bundle's file {0:?} was altered: its SHA-256 is not the manifest's")]
    Altered(String),
    /// Labels that are no JSON array of strings, or too many.
    #[error("the labels {file:?} are unusable: {reason}")]
    Labels {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A file that a step reads and that is too long.
    #[error("the file {0:?} of a step has over {STEP_FILE_MAX_BYTES} bytes")]
    StepFile(String),
    /// Probes that are no `ProbeSet`, none, or too many.
    #[error("the probes {file:?} are unusable: {reason}")]
    Probes {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
}

/// A bundle whose files are what its manifest says.
#[derive(Debug, Clone)]
pub struct Bundle {
    folder: PathBuf,
    manifest: Manifest,
    labels: Vec<String>,
}

/// One probe: inputs as an application would send them, and the outputs that were measured.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeCase {
    /// The inputs.
    pub inputs: Vec<Tensor>,
    /// The expected outputs.
    pub outputs: Vec<Tensor>,
}

impl Bundle {
    /// Checks every file of the folder against a manifest whose signature was verified, and reads
    /// the labels. Nothing is loaded yet.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn open(folder: &Path, manifest: Manifest) -> Result<Self, BundleError> {
        check_unlisted(folder, &manifest)?;
        for (name, file) in &manifest.files {
            check_file(folder, name, file)?;
        }
        let file = manifest.classes.as_ref().and_then(|classes| classes.labels.as_deref());
        let labels = file.map_or(Ok(Vec::new()), |file| read_labels(folder, file))?;
        Ok(Self { folder: folder.to_owned(), manifest, labels })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The labels in class order; none for a model without.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The ONNX file.
    pub fn model_path(&self) -> PathBuf {
        self.folder.join(MODEL_FILE)
    }

    /// The files that the manifest's steps name, read anew.
    ///
    /// # Errors
    /// [`BundleError::StepFile`] or [`BundleError::Read`].
    pub fn step_files(&self) -> Result<StepFiles, BundleError> {
        let steps = self.manifest.preprocess.iter().flat_map(|p| &p.steps);
        let read = |file: &str| Ok((file.to_owned(), read_step_file(&self.folder, file)?));
        steps.filter_map(Step::file).map(read).collect()
    }

    /// The probes, read anew.
    ///
    /// # Errors
    /// [`BundleError::Probes`] or [`BundleError::Read`].
    pub fn probes(&self) -> Result<Vec<ProbeCase>, BundleError> {
        let file = &self.manifest.probes.file;
        let unusable = |reason: String| BundleError::Probes { file: file.clone(), reason };
        let bytes = read_bounded(&self.folder.join(file), PROBES_MAX_BYTES)?;
        let bytes = bytes.ok_or_else(|| unusable(format!("over {PROBES_MAX_BYTES} bytes")))?;
        let set = ProbeSet::decode(bytes.as_slice()).map_err(|e| unusable(e.to_string()))?;
        if !(1..=PROBES_MAX_COUNT).contains(&set.probes.len()) {
            return Err(unusable(format!(
                "{} of them, not 1 to {PROBES_MAX_COUNT}",
                set.probes.len()
            )));
        }
        let cases = set
            .probes
            .into_iter()
            .map(|probe| probe.tensors().map(|(inputs, outputs)| ProbeCase { inputs, outputs }));
        cases.collect::<Result<_, _>>().map_err(|e: Problem| unusable(e.to_string()))
    }
}

fn read_error(path: &Path) -> impl FnOnce(std::io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Read { path, source }
}

fn check_unlisted(folder: &Path, manifest: &Manifest) -> Result<(), BundleError> {
    for entry in fs::read_dir(folder).map_err(read_error(folder))? {
        let name = entry.map_err(read_error(folder))?.file_name();
        let listed = |name: &OsStr| {
            name == MANIFEST_FILE || manifest.files.keys().any(|file| name == file.as_str())
        };
        if !listed(&name) {
            return Err(BundleError::Unlisted(name.to_string_lossy().into_owned()));
        }
    }
    Ok(())
}

fn check_file(folder: &Path, name: &str, expected: &FileRef) -> Result<(), BundleError> {
    let path = folder.join(name);
    let metadata = match fs::symlink_metadata(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(BundleError::Missing(name.into())),
        other => other.map_err(read_error(&path))?,
    };
    if !metadata.is_file() {
        return Err(BundleError::Missing(name.to_owned()));
    }
    let (expected_bytes, actual) = (expected.size_bytes, metadata.len());
    if actual != expected_bytes {
        return Err(BundleError::Size { file: name.to_owned(), expected: expected_bytes, actual });
    }
    let found = file_ref(&path).map_err(read_error(&path))?;
    if found == *expected { Ok(()) } else { Err(BundleError::Altered(name.to_owned())) }
}

/// Length and SHA-256 of a file, read in pieces.
pub(crate) fn file_ref(path: &Path) -> std::io::Result<FileRef> {
    let mut file = File::open(path)?;
    let (mut hasher, mut size_bytes) = (Hasher::default(), 0);
    let mut piece = vec![0; 64 << 10];
    loop {
        let len = file.read(&mut piece)?;
        if len == 0 {
            return Ok(FileRef { sha256: hasher.finish(), size_bytes });
        }
        hasher.update(&piece[..len]);
        size_bytes += len as u64;
    }
}

/// A file's bytes; `None` if there are more than `max_bytes`.
fn read_bounded(path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>, BundleError> {
    let file = File::open(path).map_err(read_error(path))?;
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(read_error(path))?;
    Ok((bytes.len() as u64 <= max_bytes).then_some(bytes))
}

/// The labels: a JSON array of strings in class order.
pub(crate) fn read_labels(folder: &Path, file: &str) -> Result<Vec<String>, BundleError> {
    let unusable = |reason: String| BundleError::Labels { file: file.to_owned(), reason };
    let bytes = read_bounded(&folder.join(file), LABELS_MAX_BYTES)?;
    let bytes = bytes.ok_or_else(|| unusable(format!("over {LABELS_MAX_BYTES} bytes")))?;
    serde_json::from_slice(&bytes).map_err(|e| unusable(e.to_string()))
}

/// A file that a step reads.
pub(crate) fn read_step_file(folder: &Path, file: &str) -> Result<Vec<u8>, BundleError> {
    let bytes = read_bounded(&folder.join(file), STEP_FILE_MAX_BYTES)?;
    bytes.ok_or_else(|| BundleError::StepFile(file.to_owned()))
}
