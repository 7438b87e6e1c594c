//! A whole ONNX file.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::error::OnnxError;
use super::external;
use super::graph::Graph;
use super::limits::FILE_MAX_BYTES;
use super::proto::ModelProto;
use super::scan::scan;

/// An ONNX model: what stands around its main graph, and the graph.
#[derive(Debug, Clone)]
pub struct Model {
    /// Everything but the graph.
    head: ModelProto,
    graph: Graph,
    /// Fields that the schema does not know, written again at the end.
    unknown: Bytes,
}

pub(super) fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> OnnxError {
    let path = path.to_owned();
    move |source| OnnxError::Io { path, source }
}

impl Model {
    /// Reads a file, with weights that lie beside it. They are slices of the files' bytes afterwards.
    ///
    /// # Errors
    /// [`OnnxError`].
    pub fn read(path: &Path) -> Result<Self, OnnxError> {
        let mut model = Self::parse(read_file(path)?)?;
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        external::load(&mut model.graph, folder.unwrap_or(Path::new(".")))?;
        Ok(model)
    }

    /// Reads a model that is in memory.
    ///
    /// # Errors
    /// [`OnnxError`]; [`OnnxError::NoFolder`] when its weights are elsewhere.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, OnnxError> {
        let model = Self::parse(bytes)?;
        match external::any(&model.graph) {
            true => Err(OnnxError::NoFolder),
            false => Ok(model),
        }
    }

    pub(super) fn parse(bytes: Bytes) -> Result<Self, OnnxError> {
        let size_bytes = bytes.len() as u64;
        if size_bytes > FILE_MAX_BYTES {
            return Err(OnnxError::TooLong { size_bytes });
        }
        let unknown = scan(&bytes)?;
        let head = ModelProto::decode(bytes);
        let mut head = head.map_err(|e| OnnxError::Malformed { reason: e.to_string() })?;
        let graph = Graph::new(head.graph.take().ok_or(OnnxError::NoGraph)?)?;
        Ok(Self { head, graph, unknown })
    }

    /// A new model around a graph, at one version of the standard's operators.
    pub fn new(graph: Graph, opset: i64) -> Self {
        let mut model = Self { head: ModelProto::default(), graph, unknown: Bytes::new() };
        model.head.ir_version = Some(8);
        model.set_opset("", opset);
        model
    }

    /// The main graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The main graph, to be edited.
    pub fn graph_mut(&mut self) -> &mut Graph {
        &mut self.graph
    }

    /// What stands around the graph: versions, functions, training information, metadata. Its own
    /// graph is absent.
    pub fn head(&self) -> &ModelProto {
        &self.head
    }

    /// What stands around the graph, to be edited.
    pub fn head_mut(&mut self) -> &mut ModelProto {
        &mut self.head
    }

    /// The message, nodes in topological order.
    ///
    /// # Errors
    /// [`OnnxError::Cycle`].
    pub fn to_proto(&self) -> Result<ModelProto, OnnxError> {
        Ok(ModelProto { graph: Some(self.graph.to_proto()?), ..self.head.clone() })
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// [`OnnxError::Cycle`]; [`OnnxError::TooLong`] for what only fits with its weights beside it.
    pub fn to_bytes(&self) -> Result<Bytes, OnnxError> {
        self.encode(&self.to_proto()?)
    }

    /// How long the file would be; 0 for a graph that cannot be written.
    pub fn size_bytes(&self) -> u64 {
        self.to_proto().map_or(0, |proto| (proto.encoded_len() + self.unknown.len()) as u64)
    }

    fn encode(&self, proto: &ModelProto) -> Result<Bytes, OnnxError> {
        let size = proto.encoded_len() + self.unknown.len();
        if size as u64 > FILE_MAX_BYTES {
            return Err(OnnxError::TooLong { size_bytes: size as u64 });
        }
        let mut bytes = BytesMut::with_capacity(size);
        proto.encode_raw(&mut bytes);
        bytes.put_slice(&self.unknown);
        Ok(bytes.freeze())
    }

    /// Writes the file: beside it first, then in its place in one step. What is too long for one
    /// file gets its weights beside it, in a file of the same name with `.data`.
    ///
    /// # Errors
    /// [`OnnxError`]; nothing is left behind then.
    pub fn write(&self, path: &Path) -> Result<(), OnnxError> {
        match self.to_bytes() {
            Ok(bytes) => write_file(path, |file| file.write_all(&bytes)),
            Err(OnnxError::TooLong { .. }) => self.write_external(path),
            Err(error) => Err(error),
        }
    }

    /// Writes the file with its larger weights beside it, in a file of the same name with `.data`.
    ///
    /// # Errors
    /// [`OnnxError`].
    pub fn write_external(&self, path: &Path) -> Result<(), OnnxError> {
        let mut proto = self.to_proto()?;
        let weights = proto.graph.as_mut().map_or(&mut [][..], |graph| &mut graph.initializer[..]);
        let data = data_path(path);
        let name = data.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let moved = external::move_out(weights, &name);
        let bytes = self.encode(&proto)?;
        write_file(&data, |file| external::write(file, &moved))?;
        write_file(path, |file| file.write_all(&bytes))
    }
}

fn data_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".data");
    path.with_file_name(name)
}

pub(super) fn read_file(path: &Path) -> Result<Bytes, OnnxError> {
    let file = File::open(path).map_err(io_error(path))?;
    let size_bytes = file.metadata().map_err(io_error(path))?.len();
    if size_bytes > FILE_MAX_BYTES {
        return Err(OnnxError::TooLong { size_bytes });
    }
    let mut bytes = Vec::new();
    let size = usize::try_from(size_bytes).unwrap_or(0);
    bytes.try_reserve_exact(size).map_err(|e| io_error(path)(e.into()))?;
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io_error(path))?;
    Ok(bytes.into())
}

/// Fills a file beside its place and renames it; on failure it is removed again.
fn write_file(
    path: &Path,
    fill: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> Result<(), OnnxError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&part)?;
        fill(&mut file)?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    };
    write().map_err(|source| {
        let _ = std::fs::remove_file(&part); // may not exist; the first error is the one to tell
        OnnxError::Io { path: path.to_owned(), source }
    })
}
