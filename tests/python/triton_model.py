"""Serves the ONNX file beside it in Triton's Python backend, one thread, as the agent does."""

import os
import sys

sys.path.insert(0, "PACKAGES")  # its own environment, which Triton's interpreter does not know

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

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        value = pb.get_input_tensor_by_name(request, self.input).as_numpy()
        [result] = self.session.run([self.output], {self.input: value})
        return pb.InferenceResponse([pb.Tensor(self.output, result)])
