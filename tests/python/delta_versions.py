"""Makes further versions of ONNX models, for the bench of deltas.

delta_versions.py tune TASK MODEL OUT STEPS RATE [DATA ...]   steps of Adam on all weights
delta_versions.py head TASK MODEL OUT STEPS RATE [DATA ...]   the same, on the last layer's alone
delta_versions.py prune MODEL OUT SHARE                       the smallest weights of each matrix become zero
delta_versions.py bsdiff OLD NEW PATCH                        a patch of bsdiff4

Tasks: `images IMAGES LABELS` (28x28 grey bytes, a byte each), `crops FOLDER` (pictures; the labels are what the
model itself says of them), `lines FILE TOKENIZER` (rated lines: the mean vector is to tell the rating). Gradients are
those of JAX, through the graph as it stands in the file; batch normalization keeps its statistics.
"""

import sys

import numpy as np


def is_static(*values):
    return all(isinstance(value, (np.ndarray, np.generic)) for value in values if value is not None)


class Graph:
    """The graph of a file as a function of its weights and inputs."""

    def __init__(self, path):
        import onnx
        from onnx import numpy_helper

        self.model = onnx.load(path)
        tensors = self.model.graph.initializer
        self.numbers = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}
        # A bias of shape [] or a scale of one is a constant of the architecture, not a weight.
        self.weights = {
            name: value for name, value in self.numbers.items()
            if value.dtype == np.float32 and value.size > 1 and "running_" not in name
        }
        self.helper = numpy_helper

    def last_layer(self):
        """The weights of the last matrix product and its bias."""
        for node in reversed(self.model.graph.node):
            own = [name for name in node.input if name in self.weights]
            if node.op_type in ("Gemm", "MatMul", "Conv") and own:
                return own
        raise SystemExit("no last layer")

    def run(self, weights, inputs):
        values = {"": None, **self.numbers, **weights, **inputs}
        for node in self.model.graph.node:
            attributes = {a.name: onnx_attribute(a, self.helper) for a in node.attribute}
            operator = globals()["op_" + node.op_type]
            results = operator(attributes, *[values[name] for name in node.input])
            results = results if isinstance(results, tuple) else (results,)
            values.update(zip(node.output, results))
        return [values[output.name] for output in self.model.graph.output]

    def write(self, path, weights):
        """The file with these weights: each tensor in its place, all other bytes as they were."""
        for tensor in self.model.graph.initializer:
            if tensor.name in weights:
                value = np.asarray(weights[tensor.name], dtype=np.float32)
                assert tensor.HasField("raw_data"), tensor.name
                tensor.raw_data = value.tobytes()
        with open(path, "wb") as file:
            file.write(self.model.SerializeToString())


def onnx_attribute(attribute, helper):
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    return helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def library(*values):
    import jax.numpy as jnp

    return np if is_static(*values) else jnp


def elementwise(name):
    return lambda _, *values: getattr(library(*values), name)(*values)


op_Add, op_Sub, op_Mul, op_Pow = map(elementwise, ("add", "subtract", "multiply", "power"))
op_Sqrt = elementwise("sqrt")


def op_Div(_, a, b):
    integers = is_static(a, b) and np.issubdtype(np.asarray(a).dtype, np.integer)
    return a // b if integers else library(a, b).divide(a, b)


def op_Relu(_, x):
    return library(x).maximum(x, 0)


def op_Clip(_, x, low=None, high=None):
    return library(x).clip(x, low, high)


def op_Erf(_, x):
    from jax.scipy.special import erf

    return erf(x)


def op_Softmax(attributes, x):
    import jax

    return jax.nn.softmax(x, axis=attributes.get("axis", -1))


def op_Constant(attributes):
    return np.asarray(attributes["value"])


def op_ConstantOfShape(attributes, shape):
    value = attributes.get("value", np.zeros(1, np.float32))
    return np.full(tuple(int(d) for d in shape), value[0])


def op_Shape(_, x):
    return np.asarray(x.shape, np.int64)


def op_Cast(attributes, x):
    kinds = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_}
    return x.astype(kinds[attributes["to"]])


def op_Gather(attributes, x, indices):
    return library(x, indices).take(x, indices, axis=attributes.get("axis", 0))


def op_Unsqueeze(_, x, axes):
    return library(x).expand_dims(x, tuple(int(axis) for axis in axes))


def op_Concat(attributes, *values):
    return library(*values).concatenate(values, axis=attributes["axis"])


def op_Slice(_, x, starts, ends, axes=None, steps=None):
    index = [slice(None)] * x.ndim
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps):
        start, end, step = int(start), int(end), int(step)
        limit = x.shape[int(axis)]
        end = None if end >= limit or end < -limit else end
        index[int(axis)] = slice(start, end, step)
    return x[tuple(index)]


def op_Pad(_, x, pads, value=None, axes=None):
    half = len(pads) // 2
    widths = [(int(pads[i]), int(pads[i + half])) for i in range(half)]
    return library(x).pad(x, widths)


def op_Reshape(_, x, shape):
    sizes = [x.shape[i] if d == 0 else int(d) for i, d in enumerate(shape)]
    return library(x).reshape(x, sizes)


def op_Transpose(attributes, x):
    return library(x).transpose(x, attributes.get("perm"))


def op_Flatten(attributes, x):
    axis = attributes.get("axis", 1)
    return library(x).reshape(x, (int(np.prod(x.shape[:axis])), -1))


def op_MatMul(_, a, b):
    return library(a, b).matmul(a, b)


def op_Gemm(attributes, a, b, c=None):
    a = a.T if attributes.get("transA") else a
    b = b.T if attributes.get("transB") else b
    product = attributes.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + attributes.get("beta", 1.0) * c


def op_GlobalAveragePool(_, x):
    return library(x).mean(x, axis=tuple(range(2, x.ndim)), keepdims=True)


def op_LayerNormalization(attributes, x, scale, bias=None):
    axes = tuple(range(attributes.get("axis", -1) % x.ndim, x.ndim))
    mean = x.mean(axes, keepdims=True)
    spread = ((x - mean) ** 2).mean(axes, keepdims=True)
    normal = (x - mean) / library(x).sqrt(spread + attributes.get("epsilon", 1e-5)) * scale
    return normal if bias is None else normal + bias


def op_BatchNormalization(attributes, x, scale, bias, mean, variance):
    shape = (1, -1) + (1,) * (x.ndim - 2)
    factor = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
    return x * factor.reshape(shape) + (bias - mean * factor).reshape(shape)


def op_Conv(attributes, x, w, b=None):
    from jax import lax

    spatial = x.ndim - 2
    pads = attributes.get("pads", [0] * 2 * spatial)
    y = lax.conv_general_dilated(
        x, w, tuple(attributes.get("strides", [1] * spatial)),
        [(pads[i], pads[i + spatial]) for i in range(spatial)],
        rhs_dilation=tuple(attributes.get("dilations", [1] * spatial)),
        feature_group_count=attributes.get("group", 1),
    )
    return y if b is None else y + b.reshape((1, -1) + (1,) * spatial)


def cross_entropy(logits, labels):
    import jax
    import jax.numpy as jnp

    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()


def images(graph, file, labels):
    pictures = np.fromfile(file, np.uint8).reshape(-1, 1, 28, 28).astype(np.float32) / 255
    kinds = np.fromfile(labels, np.uint8).astype(np.int32)
    name = graph.model.graph.input[0].name

    def batch(chance):
        chosen = chance.integers(0, len(pictures), 32)
        return {name: pictures[chosen]}, kinds[chosen]

    return batch, lambda outputs, labels, _: cross_entropy(outputs[0], labels), {}


def crops(graph, folder):
    import pathlib

    from PIL import Image

    files = sorted(pathlib.Path(folder).glob("*.jpg"))
    read = [np.asarray(Image.open(file).convert("RGB"), np.float32) for file in files]
    pictures = (np.stack(read).transpose(0, 3, 1, 2) - 127) / 128
    name = graph.model.graph.input[0].name
    kinds = np.concatenate([
        np.asarray(graph.run({}, {name: pictures[i:i + 8]})[0]).argmax(1) for i in range(0, len(pictures), 8)
    ])

    def batch(chance):
        chosen = chance.integers(0, len(pictures), 2)  # gradients of depthwise convolutions are slow here
        return {name: pictures[chosen]}, kinds[chosen].astype(np.int32)

    return batch, lambda outputs, labels, _: cross_entropy(outputs[0], labels), {}


def lines(graph, file, tokenizer):
    from tokenizers import Tokenizer

    rows = [line.split("\t") for line in open(file, encoding="utf-8", errors="replace")]
    rows = [row for row in rows if len(row) > 2][:2000]
    ratings = np.asarray([float(row[1]) for row in rows], np.float32)
    words = Tokenizer.from_file(tokenizer)
    words.enable_truncation(32)
    words.enable_padding(length=32)
    codes = words.encode_batch([row[2] for row in rows])
    ids = np.asarray([code.ids for code in codes], np.int64)
    masks = np.asarray([code.attention_mask for code in codes], np.int64)
    head = np.random.default_rng(1).normal(0, 0.05, 384).astype(np.float32)

    def batch(chance):
        chosen = chance.integers(0, len(rows), 16)
        given = {"input_ids": ids[chosen], "attention_mask": masks[chosen]}
        given["token_type_ids"] = np.zeros_like(ids[chosen])
        return given, (ratings[chosen], masks[chosen].astype(np.float32)[..., None])

    def loss(outputs, labels, extra):
        ratings, mask = labels
        mean = (outputs[0] * mask).sum(1) / mask.sum(1)
        return ((mean @ extra["head"] - ratings) ** 2).mean()

    return batch, loss, {"head": head}


def tune(whole, task, model, out, steps, rate, *data):
    import jax
    import jax.numpy as jnp

    graph = Graph(model)
    batch, loss, extra = globals()[task](graph, *data)
    names = list(graph.weights) if whole else graph.last_layer()
    own = {"": {name: jnp.asarray(graph.weights[name]) for name in names}, "extra": extra}

    def value(own, inputs, labels):
        return loss(graph.run(own[""], inputs), labels, own["extra"])

    step = jax.jit(jax.value_and_grad(value)) if task != "lines" else jax.value_and_grad(value)
    mean, spread = (jax.tree.map(jnp.zeros_like, own) for _ in range(2))
    chance = np.random.default_rng(0)
    losses = []
    for index in range(1, int(steps) + 1):
        inputs, labels = batch(chance)
        lost, gradient = step(own, inputs, labels)
        losses.append(float(lost))
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradient)
        spread = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, spread, gradient)
        first, second = 1 - 0.9**index, 1 - 0.999**index
        own = jax.tree.map(
            lambda w, m, s: w - float(rate) * (m / first) / (jnp.sqrt(s / second) + 1e-8), own, mean, spread
        )
    graph.write(out, {name: np.asarray(value) for name, value in own[""].items()})
    moved = [np.abs(np.asarray(own[""][n]) - graph.weights[n]).mean() / np.abs(graph.weights[n]).mean() for n in names]
    print(f"{losses[0]:.4f} {losses[-1]:.4f} {np.median(moved):.6f}")


def prune(model, out, share):
    graph = Graph(model)
    pruned = {}
    for name, value in graph.weights.items():
        if value.ndim >= 2:
            least = np.quantile(np.abs(value), float(share))
            pruned[name] = np.where(np.abs(value) < least, np.float32(0), value)
    graph.write(out, pruned)


def bsdiff(old, new, patch):
    import bsdiff4

    bsdiff4.file_diff(old, new, patch)


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command in ("tune", "head"):
        tune(command == "tune", *arguments)
    else:
        {"prune": prune, "bsdiff": bsdiff}[command](*arguments)
