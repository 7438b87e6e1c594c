//! Models and data that `outrigger model compress` cannot use: a typed error that says what, and nothing is left behind.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use models::onnx::attribute::node;
use models::onnx::proto::{ModelProto, NodeProto};
use models::onnx::{Model, tensor};
use outrigger_tests::small_disk::SmallDisk;
use outrigger_tests::world::{fashion, program};
use prost::Message;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn compress(onnx: &Path, data: &Path, out: &Path) -> Command {
    let mut command = Command::new(program("outrigger").unwrap());
    command.args(["model", "compress", "--json", "--for", "size", "--target-drop", "20%"]);
    command.arg(onnx).arg("--calibration").arg(data).arg("--out").arg(out).stdin(Stdio::null());
    command
}

/// The names in a folder that are no journal: the journal is what a next try begins with.
fn left(out: &Path) -> Vec<String> {
    let entries = fs::read_dir(out).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "journal.jsonl").collect()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Refused with these words, and nothing is left.
fn check(onnx: &Path, data: &Path, says: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let output = compress(onnx, data, &out).output().unwrap();
    let errors = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{}: {errors}", onnx.display());
    assert!(says.iter().all(|words| errors.contains(words)), "{}: {errors}", onnx.display());
    assert_eq!(left(&out), [] as [&str; 0], "{}", onnx.display());
}

/// The demo's edge variant with a change, as a file.
fn altered(folder: &Path, name: &str, alter: impl FnOnce(&mut ModelProto)) -> PathBuf {
    let bytes = fs::read(fashion().join("edge.onnx")).unwrap();
    let mut model = ModelProto::decode(&bytes[..]).unwrap();
    alter(&mut model);
    let path = folder.join(name);
    fs::write(&path, model.encode_to_vec()).unwrap();
    path
}

fn nodes(model: &mut ModelProto) -> &mut Vec<NodeProto> {
    &mut model.graph.as_mut().unwrap().node
}

#[test]
fn bad_models_are_refused_by_name_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, data) = (folder.path(), fashion());
    let make = |name: &str, alter: fn(&mut ModelProto)| altered(folder, name, alter);
    let cyclic = make("cyclic.onnx", |model| {
        let last = nodes(model).last().unwrap().output[0].clone();
        nodes(model)[0].input[0] = last;
    });
    check(&cyclic, &data, &["cycle"]);
    let old = make("old.onnx", |model| {
        model.opset_import.iter_mut().for_each(|set| set.version = Some(9));
        let nodes = nodes(model).iter_mut();
        nodes.for_each(|node| node.attribute.retain(|a| a.name() != "training_mode"));
    });
    check(&old, &data, &["opset 13"]);
    let unknown = make("unknown.onnx", |model| {
        model.opset_import.push(models::onnx::proto::OperatorSetIdProto {
            domain: Some("com.example".to_owned()),
            version: Some(1),
        });
        let node = nodes(model).iter_mut().find(|node| node.op_type() == "Relu").unwrap();
        node.op_type = Some("Strange".to_owned());
        node.domain = Some("com.example".to_owned());
    });
    check(&unknown, &data, &["com.example", "Strange"]);
    let nan = make("nan.onnx", |model| {
        let weights = &mut model.graph.as_mut().unwrap().initializer;
        let weight = weights.iter_mut().find(|weight| weight.dims.len() == 4).unwrap();
        let count = tensor::elements(&weight.dims).unwrap();
        *weight = tensor::new(weight.name(), &weight.dims, &vec![f32::NAN; count]);
    });
    check(&nan, &data, &["NaN", "saved broken"]);
    let whole = fs::read(data.join("edge.onnx")).unwrap();
    let truncated = folder.join("truncated.onnx");
    fs::write(&truncated, &whole[..whole.len() / 2]).unwrap();
    check(&truncated, &data, &["truncated"]);
    fs::write(&truncated, []).unwrap();
    check(&truncated, &data, &["no graph"]);
    fs::write(&truncated, [0xff; 4096]).unwrap();
    check(&truncated, &data, &["error:"]);
}

#[test]
fn bad_data_are_refused_by_name_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, edge) = (folder.path(), fashion().join("edge.onnx"));
    fs::write(folder.join("some.f32"), vec![0; 12 * 4 * 27 * 27]).unwrap();
    fs::write(folder.join("none.f32"), []).unwrap();
    let data = |name: &str, file: &str, shape: &str| {
        let text = format!(
            "[[inputs]]\ninput = \"image\"\nfile = \"{file}\"\ndatatype = \"FP32\"\nitem_shape = {shape}\n"
        );
        fs::write(folder.join(name), text).unwrap();
        folder.join(name)
    };
    check(&edge, &data("shape.toml", "some.f32", "[1, 27, 27]"), &["the model takes", "28"]);
    check(&edge, &data("empty.toml", "none.f32", "[1, 28, 28]"), &["none.f32"]);
    check(&edge, &data("absent.toml", "absent.f32", "[1, 28, 28]"), &["absent.f32"]);
    check(&edge, &data("ragged.toml", "some.f32", "[1, 28, 28]"), &["some.f32"]);
    check(&edge, &folder.join("nowhere.toml"), &["nowhere.toml"]);
}

/// Shapes are asked of the runtime, so a file without any is as good; an operator that is not the standard's stays, and is
/// named.
#[test]
fn missing_shapes_and_foreign_operators_are_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let edge = Model::read(&fashion().join("edge.onnx")).unwrap();
    let mut model = edge.to_proto().unwrap();
    let graph = model.graph.as_mut().unwrap();
    graph.value_info.clear();
    graph.output.iter_mut().for_each(|output| output.r#type = None);
    model.opset_import.push(models::onnx::proto::OperatorSetIdProto {
        domain: Some("com.microsoft".to_owned()),
        version: Some(1),
    });
    let relu = nodes(&mut model).iter_mut().rfind(|node| node.op_type() == "Relu").unwrap();
    let mut gelu = node("QuickGelu", &[&relu.input[0]], &[&relu.output[0]]);
    gelu.domain = Some("com.microsoft".to_owned());
    let output = gelu.output[0].clone();
    *relu = gelu;
    let (onnx, out) = (folder.path().join("gelu.onnx"), folder.path().join("out"));
    fs::write(&onnx, model.encode_to_vec()).unwrap();
    let made = compress(&onnx, &fashion(), &out).output().unwrap();
    assert!(made.status.success(), "{}", errors(&made));
    let report: Value = serde_json::from_slice(&made.stdout).unwrap();
    let in_float = report["outcome"]["in_float"].as_array().unwrap();
    let named = in_float.iter().find(|left| left["output"] == output.as_str());
    assert_eq!(named.unwrap()["operator"], "com.microsoft.QuickGelu", "{in_float:?}");
    let made = Model::read(&out.join("model.onnx")).unwrap();
    assert_eq!(made.graph().nodes().filter(|(_, n)| n.op_type() == "QuickGelu").count(), 1);
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("com.microsoft.QuickGelu"), "{page}");
}

/// The folder of the result is full, then that of the builds; with room again the same command ends well.
#[test]
fn a_full_disk_is_said_and_leaves_no_half_model() {
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("small");
    let Some(disk) = SmallDisk::mount(&small) else { return };
    let filler = disk.fill().unwrap();
    let (edge, data) = (fashion().join("edge.onnx"), fashion());
    let (inside, outside) = (small.join("out"), folder.path().join("out"));
    for (out, scratch) in [(&inside, folder.path()), (&outside, small.as_path())] {
        let output = compress(&edge, &data, out).env("TMPDIR", scratch).output().unwrap();
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("hint: make room"), "{errors}");
        assert_eq!(left(out), [] as [&str; 0]);
    }
    // Room for the journal and not for the model.
    let room = fs::metadata(&filler).unwrap().len() - 20 * 1024;
    fs::OpenOptions::new().write(true).open(&filler).unwrap().set_len(room).unwrap();
    let output = compress(&edge, &data, &inside).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    assert_eq!(left(&inside), [] as [&str; 0]);
    fs::remove_file(filler).unwrap();
    let output = compress(&edge, &data, &inside).output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    assert!(inside.join("model.onnx").is_file() && inside.join("report.html").is_file());
}
