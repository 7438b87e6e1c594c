//! A model that is too long for one file: written with its weights beside it, read, edited, written again, and judged by
//! ONNX's checker and ONNX Runtime's own Python.
//!
//! It looks up rows of tables. Each number of a table says where it should lie, so one from another place is seen.

use anyhow::{Context, ensure};
use bytes::Bytes;
use models::backend::{Backend, SessionOptions};
use models::onnx::attribute::node;
use models::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use models::onnx::proto::{
    GraphProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use models::onnx::{Graph, Model, OnnxError, tensor};
use models::ort_backend::{OrtBackend, find_library};
use protocol::tensor::{DataType, Tensor, TensorMeta};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::bench::{BenchReport, Goal, Row, rounded};
use crate::python::Environment;

/// How long the model is.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Rows of each table.
    rows: u16,
    /// Numbers of each row.
    columns: u16,
}

impl Amount {
    /// 300 kB, in two files all the same.
    pub const SHORT: Self = Self { rows: 600, columns: 64 };
    /// 2.3 GB.
    pub const WHOLE: Self = Self { rows: 35_000, columns: 8192 };

    fn table_bytes(self) -> usize {
        usize::from(self.rows) * self.row_bytes()
    }

    fn row_bytes(self) -> usize {
        usize::from(self.columns) * size_of::<f32>()
    }
}

/// Each table begins so many rows further in the same numbers.
const APART: u16 = 7;
const TABLES: u16 = 2;
const PACKAGES: [&str; 3] = ["onnx==1.23.2", "onnxruntime==1.31.1", "numpy"];

/// Runs the proof; `None`, with the reason printed, where there is no registry.
///
/// # Errors
/// What is not as it should be.
pub fn run(amount: Amount) -> anyhow::Result<Option<BenchReport>> {
    let Some(python) = Environment::with(&PACKAGES)? else { return Ok(None) };
    let backend = OrtBackend::open(&find_library(None)?)?;
    let folder = tempfile::tempdir()?;
    let [first, second] = ["first.onnx", "second.onnx"].map(|name| folder.path().join(name));
    let begin = Instant::now();
    write(&tables(amount)?, &first, amount)?;
    let written_s = begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    let mut model = Model::read(&first)?;
    let read_s = begin.elapsed().as_secs_f64();
    let size_bytes = model.size_bytes();
    is_whole(&model, amount)?;
    judge(&first, amount, (&python, &backend))?;
    std::fs::remove_file(beside(&first))?;

    let graph = model.graph_mut();
    graph.insert(node("Neg", &["row_1"], &["turned"]))?;
    let columns = i64::from(amount.columns);
    graph.head_mut().output.push(value("turned", tensor::element::FLOAT, &[-1, columns]));
    write(&model, &second, amount)?;
    drop(model);
    is_whole(&Model::read(&second)?, amount)?;
    let given = judge(&second, amount, (&python, &backend))?;
    let last = f32::from(amount.rows - 1 + APART);
    ensure!(given.last() == Some(&-last), "the edit is not in the file: {given:?}");
    let gigabytes = size_bytes as f64 / 1e9;
    let row = [("GB", gigabytes), ("written s", written_s), ("read s", read_s)];
    let row = Row(row.map(|(name, value)| (name, json!(rounded(value)))).to_vec());
    let least = if amount.table_bytes() > 1 << 30 { 2.147_483_648 } else { 0.0 };
    let goals = vec![Goal::at_least("length of the model, GB", least, gigabytes)];
    Ok(Some(BenchReport { name: "long-model", rows: vec![row], goals }))
}

/// Writes a model, and sees that its weights are beside it.
fn write(model: &Model, path: &Path, amount: Amount) -> anyhow::Result<()> {
    match model.to_bytes() {
        Err(OnnxError::TooLong { .. }) => model.write(path)?,
        Err(error) => return Err(error.into()),
        Ok(_) => model.write_external(path)?,
    }
    let weights = beside(path).metadata()?.len();
    let tables = (amount.table_bytes() * usize::from(TABLES)) as u64;
    ensure!(weights >= tables && path.metadata()?.len() < 100_000, "{weights} bytes are beside it");
    Ok(())
}

fn beside(path: &Path) -> PathBuf {
    path.with_extension("onnx.data")
}

/// The model. Its tables are slices of the same numbers, so that it takes half the memory.
fn tables(amount: Amount) -> anyhow::Result<Model> {
    let rows = 0..amount.rows + APART * (TABLES - 1);
    let row = |row: u16| f32::from(row).to_le_bytes().repeat(usize::from(amount.columns));
    let mut numbers = Vec::with_capacity(rows.len() * amount.row_bytes());
    rows.for_each(|index| numbers.extend(row(index)));
    let numbers = Bytes::from(numbers);
    let (height, width) = (i64::from(amount.rows), i64::from(amount.columns));
    let mut graph = GraphProto {
        name: Some("tables".to_owned()),
        input: vec![value("ids", tensor::element::INT64, &[-1])],
        ..GraphProto::default()
    };
    for table in 0..TABLES {
        let (name, given) = (format!("table_{table}"), format!("row_{table}"));
        let begin = usize::from(table * APART) * amount.row_bytes();
        graph.initializer.push(TensorProto {
            name: Some(name.clone()),
            dims: vec![height, width],
            data_type: Some(tensor::element::FLOAT),
            raw_data: Some(numbers.slice(begin..begin + amount.table_bytes())),
            ..TensorProto::default()
        });
        graph.node.push(node("Gather", &[&name, "ids"], &[&given]));
        graph.output.push(value(&given, tensor::element::FLOAT, &[-1, width]));
    }
    Ok(Model::new(Graph::new(graph)?, 17))
}

fn value(name: &str, element: i32, dims: &[i64]) -> ValueInfoProto {
    let size = |size: &i64| Dimension {
        value: Some(match size {
            -1 => dimension::Value::DimParam("n".to_owned()),
            size => dimension::Value::DimValue(*size),
        }),
        ..Dimension::default()
    };
    let shape = TensorShapeProto { dim: dims.iter().map(size).collect() };
    let kind = type_proto::Tensor { elem_type: Some(element), shape: Some(shape) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(kind)), ..Default::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind), ..Default::default() }
}

/// The ends of each table are where they should be.
fn is_whole(model: &Model, amount: Amount) -> anyhow::Result<()> {
    for table in 0..TABLES {
        let weight =
            model.graph().weight(&format!("table_{table}")).context("a table is absent")?;
        let numbers = tensor::f32s(weight)?;
        let (first, last) = (f32::from(table * APART), f32::from(amount.rows - 1 + table * APART));
        let found = (numbers.first(), numbers.last());
        ensure!(found == (Some(&first), Some(&last)), "table {table} is {found:?} at its ends");
    }
    Ok(())
}

/// What is found in the last row: by ONNX Runtime here and in Python, after ONNX's checker.
fn judge(
    path: &Path,
    amount: Amount,
    (python, backend): (&Environment, &OrtBackend),
) -> anyhow::Result<Vec<f32>> {
    let last = i64::from(amount.rows - 1);
    let meta = TensorMeta::new("ids", DataType::Int64, vec![1])?;
    let ids = Tensor::new(meta, Bytes::copy_from_slice(&last.to_le_bytes()))?;
    let mut session = backend.load(path, &SessionOptions::default())?;
    let found = session.run(&[ids], &[])?;
    let found: Vec<f32> = found.iter().filter_map(|rows| rows.to_f32()?.last().copied()).collect();
    drop(session);
    let tables = (0..TABLES).map(|table| f32::from(amount.rows - 1 + table * APART));
    ensure!(found.starts_with(&tables.collect::<Vec<_>>()), "the last row is {found:?}");
    let path = path.to_str().context("a path that is no text")?;
    let theirs = python.run("onnx_check.py", &["rows", path, &last.to_string()])?;
    let theirs: Result<Vec<f32>, _> = theirs.split_whitespace().map(str::parse).collect();
    ensure!(theirs? == found, "other answers in Python");
    Ok(found)
}
