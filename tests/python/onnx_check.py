"""Judges ONNX files that Outrigger wrote, with ONNX's own checker and ONNX Runtime's own Python.

onnx_check.py same A B [A B ...]     B must be the same message as A
onnx_check.py valid MODEL IMAGES     the model passes the checker in full, and runs on an image
onnx_check.py rows MODEL ID          the same with the number of a row; the last number of each output is printed
"""

import sys

import numpy
import onnx
import onnxruntime


def same(pairs):
    for before, after in zip(pairs[::2], pairs[1::2]):
        assert onnx.load(before) == onnx.load(after), f"{after} is not what {before} was"
    print(f"{len(pairs) // 2} files are the same message")


def valid(path, images):
    onnx.checker.check_model(path, full_check=True)
    pixels = numpy.fromfile(images, numpy.uint8, 28 * 28).reshape(1, 1, 28, 28)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits = session.run(None, {"image": (pixels / 255).astype(numpy.float32)})[0]
    print(" ".join(f"{value:.9g}" for value in logits.ravel()))


def rows(path, row):
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {"ids": numpy.array([int(row)], numpy.int64)})
    print(" ".join(f"{values.ravel()[-1]:.9g}" for values in found))


if sys.argv[1] == "same":
    same(sys.argv[2:])
else:
    {"valid": valid, "rows": rows}[sys.argv[1]](*sys.argv[2:])
