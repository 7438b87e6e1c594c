//! Weights that lie beside an ONNX file.
//!
//! A model names files, and is not trusted: only plain files inside its own folder are read. Absolute
//! names, `..`, symbolic links on the way and files with a second name elsewhere (hard links) are
//! refused, and the file that was opened must be the one that was looked at.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::error::OnnxError;
use super::file::io_error;
use super::graph::Graph;
use super::limits::{EXTERNAL_MAX_BYTES, EXTERNAL_MAX_FILES};
use super::proto::tensor_proto::DataLocation;
use super::proto::{StringStringEntryProto, TensorProto};
use super::tensor;

/// Weights shorter than this stay in the file.
const MOVED_MIN_BYTES: usize = 1024;
/// Where each tensor begins in the file of weights: pages, so that readers can map them.
const ALIGNMENT: u64 = 4096;

fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location() == DataLocation::External
}

/// Whether any weights lie elsewhere.
pub(super) fn any(graph: &Graph) -> bool {
    let mut found = false;
    graph.for_each_tensor(&mut |tensor| found |= is_external(tensor));
    found
}

/// Reads all weights that lie elsewhere.
pub(super) fn load(graph: &mut Graph, folder: &Path) -> Result<(), OnnxError> {
    if !any(graph) {
        return Ok(());
    }
    let mut files = Files { folder: folder.to_owned(), read: HashMap::new(), total: 0 };
    let mut result = Ok(());
    graph.for_each_tensor_mut(&mut |tensor| {
        if result.is_ok() && is_external(tensor) {
            result = files.fill(tensor);
        }
    });
    result
}

struct Files {
    folder: PathBuf,
    read: HashMap<String, Bytes>,
    total: u64,
}

impl Files {
    fn fill(&mut self, tensor: &mut TensorProto) -> Result<(), OnnxError> {
        let entry = |key: &str| {
            let found = tensor.external_data.iter().find(|entry| entry.key() == key);
            found.map(|entry| entry.value().to_owned())
        };
        let location = entry("location").unwrap_or_default();
        let wrong = |reason| OnnxError::External {
            tensor: tensor.name().to_owned(),
            location: location.clone(),
            reason,
        };
        let number = |key: &str| entry(key).map(|text| text.parse::<usize>()).transpose();
        let offset = number("offset").map_err(|_| wrong("its offset is no number"))?.unwrap_or(0);
        let length = number("length").map_err(|_| wrong("its length is no number"))?;
        let file = self.file(tensor.name(), &location)?;
        let end = match length {
            Some(length) => offset.checked_add(length),
            None => Some(file.len()),
        };
        let end = end.filter(|end| offset <= *end && *end <= file.len());
        let end = end.ok_or_else(|| wrong("the file is shorter than that"))?;
        if tensor::size_bytes(tensor) != Some(end - offset) {
            return Err(wrong("its length is not that of its shape"));
        }
        tensor.raw_data = Some(file.slice(offset..end));
        tensor.external_data.clear();
        tensor.data_location = None;
        Ok(())
    }

    fn file(&mut self, tensor: &str, location: &str) -> Result<Bytes, OnnxError> {
        if let Some(bytes) = self.read.get(location) {
            return Ok(bytes.clone());
        }
        if self.read.len() >= EXTERNAL_MAX_FILES {
            return Err(OnnxError::ExternalTooMuch);
        }
        let outside =
            || OnnxError::Outside { tensor: tensor.to_owned(), location: location.to_owned() };
        let path = inside(&self.folder, location).ok_or_else(outside)?;
        let seen = path.symlink_metadata().map_err(io_error(&path))?;
        let file = File::open(&path).map_err(io_error(&path))?;
        let opened = file.metadata().map_err(io_error(&path))?;
        if !(opened.is_file() && is_same(&seen, &opened)) {
            return Err(outside());
        }
        self.total = self.total.saturating_add(opened.len());
        if self.total > EXTERNAL_MAX_BYTES {
            return Err(OnnxError::ExternalTooMuch);
        }
        let mut bytes = Vec::new();
        let size = usize::try_from(opened.len()).map_err(|_| OnnxError::ExternalTooMuch)?;
        bytes.try_reserve_exact(size).map_err(|e| io_error(&path)(e.into()))?;
        file.take(opened.len()).read_to_end(&mut bytes).map_err(io_error(&path))?;
        Ok(self.read.entry(location.to_owned()).or_insert(bytes.into()).clone())
    }
}

/// The path of a location, if it is made of plain names and meets no symbolic link.
fn inside(folder: &Path, location: &str) -> Option<PathBuf> {
    let mut path = folder.to_owned();
    if location.is_empty() || location.contains(['\\', '\0']) {
        return None;
    }
    for component in Path::new(location).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir => continue,
            _ => return None,
        }
        if path.symlink_metadata().is_ok_and(|found| found.file_type().is_symlink()) {
            return None;
        }
    }
    Some(path)
}

#[cfg(unix)]
fn is_same(seen: &Metadata, opened: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (seen.dev(), seen.ino()) == (opened.dev(), opened.ino()) && opened.nlink() == 1
}

#[cfg(not(unix))]
fn is_same(seen: &Metadata, opened: &Metadata) -> bool {
    seen.is_file() && seen.len() == opened.len() && seen.modified().ok() == opened.modified().ok()
}

/// Takes the larger weights out of their tensors, which name the file then; returns them with the
/// offsets at which they are to be written.
pub(super) fn move_out(weights: &mut [TensorProto], file: &str) -> Vec<(u64, Bytes)> {
    let mut moved = Vec::new();
    let mut offset = 0u64;
    for tensor in weights {
        let Some(data) = tensor.raw_data.take_if(|data| data.len() >= MOVED_MIN_BYTES) else {
            continue;
        };
        let entries = [
            ("location", file.to_owned()),
            ("offset", offset.to_string()),
            ("length", data.len().to_string()),
        ];
        let entry = |(key, value): (&str, String)| StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(value),
        };
        tensor.external_data = entries.into_iter().map(entry).collect();
        tensor.data_location = Some(DataLocation::External.into());
        let next = (offset + data.len() as u64).next_multiple_of(ALIGNMENT);
        moved.push((offset, data));
        offset = next;
    }
    moved
}

/// Writes what [`move_out`] gave.
pub(super) fn write(file: &mut File, weights: &[(u64, Bytes)]) -> std::io::Result<()> {
    let mut at = 0u64;
    for (offset, data) in weights {
        let gap = usize::try_from(offset - at).unwrap_or(0);
        file.write_all(&vec![0; gap])?;
        file.write_all(data)?;
        at = offset + data.len() as u64;
    }
    Ok(())
}
