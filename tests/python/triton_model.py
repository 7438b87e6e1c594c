"""Serves the ONNX file beside it in Triton's Python backend, one thread, as the agent does. Requests that Triton
hands over together share a run, where the configuration allows it.
"""

import json
import os
import sys

sys.path.insert(0, "PACKAGES")  # its own environment, which Triton's interpreter does not know

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        folder = os.path.dirname(os.path.abspath(__file__))
        self.session = onnxruntime.InferenceSession(os.path.join(folder, "model.onnx"), options)
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name
        self.batches = json.loads(args["model_config"])["max_batch_size"] > 0

    def execute(self, requests):
        values = [pb.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
        if not self.batches or len(values) == 1:
            return [self.response(self.run(value)) for value in values]
        answers = self.run(np.concatenate(values))
        ends = np.cumsum([len(value) for value in values])[:-1]
        return [self.response(answer) for answer in np.split(answers, ends)]

    def run(self, value):
        return self.session.run([self.output], {self.input: value})[0]

    def response(self, answer):
        return pb.InferenceResponse([pb.Tensor(self.output, answer)])
