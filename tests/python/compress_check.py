"""Judges a compressed model with ONNX's own checker and runs it on one item with ONNX Runtime's own Python.

compress_check.py MODEL FOLDER OUTPUTS

FOLDER has the items of compress_anchor.py; the outputs for the first of them go to the file OUTPUTS, one after the other.
"""

import json
import pathlib
import sys

import numpy
import onnx
import onnxruntime


def main(model, folder, outputs):
    onnx.checker.check_model(model, full_check=True)
    folder = pathlib.Path(folder)
    data = (folder / "items.bin").read_bytes()
    item = json.loads((folder / "items.json").read_text())[0]
    feed = {
        part["name"]: numpy.frombuffer(
            data[part["offset"] : part["offset"] + part["bytes"]], part["dtype"]
        ).reshape(part["shape"])
        for part in item
    }
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    answers = session.run(None, {i.name: feed[i.name] for i in session.get_inputs()})
    pathlib.Path(outputs).write_bytes(b"".join(a.tobytes() for a in answers))


main(*sys.argv[1:])
