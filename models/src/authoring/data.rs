//! The data of an authoring folder, item by item.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use protocol::limits::TENSORS_MAX_BYTES;
use protocol::tensor::{DataType, Tensor, TensorMeta};

use super::recipe::{Items, Labels, Source};
use super::{BuildError, io_error};
use crate::numbers;

/// One file of data: 1 GiB.
const DATA_MAX_BYTES: u64 = 1 << 30;

/// Items for every input of a model.
pub(super) struct Batch {
    columns: Vec<Column>,
    len: usize,
}

/// The items for one input.
struct Column {
    input: String,
    /// For messages.
    file: String,
    items: Loaded,
}

enum Loaded {
    Raw {
        meta: TensorMeta,
        item_bytes: usize,
        data: Bytes,
    },
    /// Read one by one, because together they may be large.
    Files {
        folder: PathBuf,
        files: Vec<String>,
    },
    Lines(Vec<String>),
}

fn unusable(file: &str, reason: impl Into<String>) -> BuildError {
    BuildError::Data { file: file.to_owned(), reason: reason.into() }
}

fn read(folder: &Path, file: &str, max_bytes: u64) -> Result<Bytes, BuildError> {
    let path = folder.join(file);
    let size_bytes = fs::metadata(&path).map_err(io_error(&path))?.len();
    if size_bytes > max_bytes {
        return Err(unusable(file, format!("{size_bytes} bytes, over {max_bytes}")));
    }
    let mut data = Vec::new();
    let opened = File::open(&path).map_err(io_error(&path))?;
    opened.take(max_bytes).read_to_end(&mut data).map_err(io_error(&path))?;
    Ok(data.into())
}

impl Column {
    fn read(folder: &Path, source: &Source) -> Result<Self, BuildError> {
        let (file, items) = match &source.items {
            Items::Raw { file, datatype, item_shape } => {
                (file.clone(), raw(folder, &source.input, file, (*datatype, item_shape))?)
            }
            Items::Files(files) => {
                let (folder, files) = (folder.to_owned(), files.clone());
                ("files".to_owned(), Loaded::Files { folder, files })
            }
            Items::Lines(file) => (file.clone(), Loaded::Lines(lines(folder, file)?)),
        };
        let column = Self { input: source.input.clone(), file, items };
        if column.len() == 0 {
            return Err(unusable(&column.file, "no items"));
        }
        Ok(column)
    }

    fn len(&self) -> usize {
        match &self.items {
            Loaded::Raw { item_bytes, data, .. } => data.len() / item_bytes,
            Loaded::Files { files, .. } => files.len(),
            Loaded::Lines(lines) => lines.len(),
        }
    }

    /// One item as a batch of one.
    fn item(&self, index: usize) -> Result<Tensor, BuildError> {
        let tensor = match &self.items {
            Loaded::Raw { meta, item_bytes, data } => {
                let start = index * item_bytes;
                Tensor::new(meta.clone(), data.slice(start..start + item_bytes))
            }
            Loaded::Files { folder, files } => {
                let data = read(folder, &files[index], TENSORS_MAX_BYTES)?;
                Tensor::from_byte_strings(&self.input, vec![1], &[data])
            }
            Loaded::Lines(lines) => {
                Tensor::from_byte_strings(&self.input, vec![1], &[&lines[index]])
            }
        };
        tensor.map_err(|e| unusable(&self.file, e.to_string()))
    }
}

fn raw(
    folder: &Path,
    input: &str,
    file: &str,
    (datatype, item_shape): (DataType, &[i64]),
) -> Result<Loaded, BuildError> {
    let shape = [&[1], item_shape].concat();
    let meta =
        TensorMeta::new(input, datatype, shape).map_err(|e| unusable(file, e.to_string()))?;
    let item_bytes = meta.size_bytes().and_then(|size| usize::try_from(size).ok());
    let item_bytes = item_bytes
        .filter(|size| *size > 0)
        .ok_or_else(|| unusable(file, "items must have a fixed length above 0"))?;
    let data = read(folder, file, DATA_MAX_BYTES)?;
    if data.len() % item_bytes != 0 {
        let reason = format!("{} bytes are no whole items of {item_bytes}", data.len());
        return Err(unusable(file, reason));
    }
    Ok(Loaded::Raw { meta, item_bytes, data })
}

fn lines(folder: &Path, file: &str) -> Result<Vec<String>, BuildError> {
    let data = read(folder, file, DATA_MAX_BYTES)?;
    let text = std::str::from_utf8(&data).map_err(|e| unusable(file, e.to_string()))?;
    Ok(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
}

impl Batch {
    /// Reads the items of each input; all must have as many.
    pub(super) fn read(folder: &Path, sources: &[Source]) -> Result<Self, BuildError> {
        let columns = sources.iter().map(|source| Column::read(folder, source));
        let columns: Vec<Column> = columns.collect::<Result<_, _>>()?;
        let len = columns.first().map_or(0, Column::len);
        if let Some(other) = columns.iter().find(|column| column.len() != len) {
            let reason = format!("{} items, the first input has {len}", other.len());
            return Err(unusable(&other.file, reason));
        }
        Ok(Self { columns, len })
    }

    /// How many items there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// One item as a request's inputs.
    pub(super) fn item(&self, index: usize) -> Result<Vec<Tensor>, BuildError> {
        self.columns.iter().map(|column| column.item(index)).collect()
    }
}

/// The class of each of `len` items.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked to be whole and >= 0
pub(super) fn labels_of(
    folder: &Path,
    labels: &Labels,
    len: usize,
) -> Result<Vec<usize>, BuildError> {
    let data = read(folder, &labels.file, DATA_MAX_BYTES)?;
    let values = numbers::values_of(labels.datatype, &data)
        .ok_or_else(|| unusable(&labels.file, "class numbers cannot be BYTES"))?;
    if values.len() != len {
        let reason = format!("{} class numbers for {len} items", values.len());
        return Err(unusable(&labels.file, reason));
    }
    if let Some(wrong) = values.iter().find(|v| !(**v >= 0.0 && v.fract() == 0.0)) {
        return Err(unusable(&labels.file, format!("{wrong} is no class number")));
    }
    Ok(values.into_iter().map(|v| v as usize).collect())
}
