//! Raw data files of an authoring folder, item by item.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use protocol::tensor::{Tensor, TensorMeta};

use super::recipe::{Labels, Source};
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
    file: String,
    meta: TensorMeta,
    item_bytes: usize,
    data: Bytes,
}

fn unusable(file: &str, reason: impl Into<String>) -> BuildError {
    BuildError::Data { file: file.to_owned(), reason: reason.into() }
}

fn read(folder: &Path, file: &str) -> Result<Bytes, BuildError> {
    let path = folder.join(file);
    let size_bytes = fs::metadata(&path).map_err(io_error(&path))?.len();
    if size_bytes > DATA_MAX_BYTES {
        return Err(unusable(file, format!("{size_bytes} bytes, over {DATA_MAX_BYTES}")));
    }
    let mut data = Vec::new();
    let opened = File::open(&path).map_err(io_error(&path))?;
    opened.take(DATA_MAX_BYTES).read_to_end(&mut data).map_err(io_error(&path))?;
    Ok(data.into())
}

impl Column {
    fn read(folder: &Path, source: &Source) -> Result<Self, BuildError> {
        let shape = [&[1], source.item_shape.as_slice()].concat();
        let meta = TensorMeta::new(&source.input, source.datatype, shape)
            .map_err(|e| unusable(&source.file, e.to_string()))?;
        let item_bytes = meta.size_bytes().and_then(|size| usize::try_from(size).ok());
        let item_bytes = item_bytes
            .filter(|size| *size > 0)
            .ok_or_else(|| unusable(&source.file, "items must have a fixed length above 0"))?;
        let data = read(folder, &source.file)?;
        if data.is_empty() || data.len() % item_bytes != 0 {
            let reason = format!("{} bytes are no whole items of {item_bytes}", data.len());
            return Err(unusable(&source.file, reason));
        }
        Ok(Self { file: source.file.clone(), meta, item_bytes, data })
    }

    fn len(&self) -> usize {
        self.data.len() / self.item_bytes
    }
}

impl Batch {
    /// Reads one file per input; all must hold as many items.
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
        let cut = |column: &Column| {
            let start = index * column.item_bytes;
            let data = column.data.slice(start..start + column.item_bytes);
            Tensor::new(column.meta.clone(), data)
                .map_err(|e| unusable(&column.file, e.to_string()))
        };
        self.columns.iter().map(cut).collect()
    }
}

/// The class of each of `len` items.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked to be whole and >= 0
pub(super) fn labels_of(
    folder: &Path,
    labels: &Labels,
    len: usize,
) -> Result<Vec<usize>, BuildError> {
    let data = read(folder, &labels.file)?;
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
