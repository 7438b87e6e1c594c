"""Writes a model that is worth a GPU: a residual network of 18 layers on 224 x 224 pixels, with weights
drawn from one seed. What it says of a picture means nothing; that two processors say the same does."""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(18)
nodes, weights = [], []


def weight(name, array):
    weights.append(numpy_helper.from_array(array.astype(np.float32), name))
    return name


def conv(x, name, inputs, outputs, kernel, stride=1, relu=True):
    scale = np.sqrt(2.0 / (inputs * kernel * kernel))
    w = weight(f"{name}.w", random.standard_normal((outputs, inputs, kernel, kernel)) * scale)
    b = weight(f"{name}.b", random.standard_normal(outputs) * 0.01)
    shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
    nodes.append(helper.make_node("Conv", [x, w, b], [name], **shape))
    if relu:
        nodes.append(helper.make_node("Relu", [name], [f"{name}.relu"]))
    return f"{name}.relu" if relu else name


def block(x, name, inputs, outputs, stride):
    y = conv(x, f"{name}.1", inputs, outputs, 3, stride)
    y = conv(y, f"{name}.2", outputs, outputs, 3, relu=False)
    if inputs != outputs:
        x = conv(x, f"{name}.x", inputs, outputs, 1, stride, relu=False)
    half = weight(f"{name}.half", np.array(0.5))
    nodes.append(helper.make_node("Add", [x, y], [f"{name}.sum"]))
    nodes.append(helper.make_node("Mul", [f"{name}.sum", half], [f"{name}.scaled"]))
    nodes.append(helper.make_node("Relu", [f"{name}.scaled"], [f"{name}.out"]))
    return f"{name}.out"


x = conv("image", "stem", 3, 64, 7, 2)
nodes.append(
    helper.make_node("MaxPool", [x], ["pooled"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
)
x, width = "pooled", 64
for stage, outputs in enumerate([64, 128, 256, 512]):
    for index in range(2):
        stride = 2 if stage > 0 and index == 0 else 1
        x = block(x, f"s{stage}b{index}", width, outputs, stride)
        width = outputs
nodes.append(helper.make_node("GlobalAveragePool", [x], ["mean"]))
nodes.append(helper.make_node("Flatten", ["mean"], ["flat"]))
w = weight("head.w", random.standard_normal((512, 10)) * 0.2)
b = weight("head.b", np.zeros(10))
nodes.append(helper.make_node("Gemm", ["flat", w, b], ["logits"]))

image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 224, 224])
logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])
graph = helper.make_graph(nodes, "residual18", [image], [logits], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
onnx.checker.check_model(model)

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
onnx.save(model, folder / "model.onnx")
pictures = random.standard_normal((8, 3, 224, 224)).astype("<f4")
(folder / "pictures.f32").write_bytes(pictures.tobytes())
(folder / "model.toml").write_text(
    """name = "residual"
[classes]
logits = "logits"
[variants.edge]
onnx = "model.onnx"
[variants.cloud]
onnx = "model.onnx"
[probes]
tolerance = 1e-3
[[probes.inputs]]
input = "image"
file = "pictures.f32"
datatype = "FP32"
item_shape = [3, 224, 224]
"""
)
