"""Quantizes a model with onnxruntime.quantization, as the yardstick of the compression bench.

compress_anchor.py MODEL ITEMS HOW OUT

ITEMS is a folder with items.json and items.bin, the inputs of the calibration items. HOW is a JSON object: the keyword
arguments that differ from the library's defaults, and `method` for static quantization. Prints what it took as JSON.
"""

import json
import pathlib
import resource
import sys
import time

import numpy
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

TYPES = {"u8": QuantType.QUInt8, "s8": QuantType.QInt8}
METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}


class Items(CalibrationDataReader):
    def __init__(self, folder):
        self.left = iter(json.loads((folder / "items.json").read_text()))
        self.data = numpy.memmap(folder / "items.bin", numpy.uint8, "r")

    def get_next(self):
        item = next(self.left, None)
        return None if item is None else {part["name"]: self.tensor(part) for part in item}

    def tensor(self, part):
        data = self.data[part["offset"] : part["offset"] + part["bytes"]]
        return numpy.array(data).view(part["dtype"]).reshape(part["shape"])


def prepared(model, out):
    """With shapes and the optimisations that the library's documentation asks for, where they work."""
    target = str(out) + ".pre"
    try:
        quant_pre_process(model, target, skip_symbolic_shape=False)
    except Exception as reason:
        print(f"without symbolic shapes: {reason}", file=sys.stderr)
        quant_pre_process(model, target, skip_symbolic_shape=True)
    return target


def main(model, items, how, out):
    how = json.loads(how)
    how["weight_type"] = TYPES[how.get("weight_type", "s8")]
    begin = time.monotonic()
    model = prepared(model, out)
    if "method" in how:
        how["calibrate_method"] = METHODS[how.pop("method")]
        reader = Items(pathlib.Path(items))
        how["activation_type"] = QuantType.QUInt8
        quantize_static(model, out, reader, quant_format=QuantFormat.QDQ, **how)
    else:
        quantize_dynamic(model, out, **how)
    seconds = time.monotonic() - begin
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb}))


main(*sys.argv[1:])
