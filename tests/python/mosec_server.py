"""Serves ONNX files with mosec, each at a path of its name: the tensor's bytes in, the answer's bytes out.

Arguments: NAME=SHAPE=FILE=BATCH=WAIT of each model (a shape's dimensions are separated by commas; BATCH requests share
a run at most, and wait for each other for WAIT milliseconds), then what mosec takes.
"""

import os
import sys

import numpy as np
import onnxruntime
from mosec import Server, Worker
from mosec.runtime import Runtime


class Model(Worker):
    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL_FILE"], options)
        self.input = self.session.get_inputs()[0].name
        self.shape = [int(d) for d in os.environ["MODEL_SHAPE"].split(",")]

    def deserialize(self, data):
        return np.frombuffer(data, np.float32).reshape(self.shape)

    def forward(self, data):
        if not isinstance(data, list):
            return self.session.run(None, {self.input: data})[0]
        answers = self.session.run(None, {self.input: np.concatenate(data)})[0]
        return np.split(answers, len(data))

    def serialize(self, data):
        return data.tobytes()


if __name__ == "__main__":
    models = [argument.split("=") for argument in sys.argv[1:] if not argument.startswith("--")]
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument.startswith("--")]
    server = Server()
    routes = {}
    for name, shape, path, batch, wait in models:
        environment = {"MODEL_FILE": path, "MODEL_SHAPE": shape}
        together = {"max_batch_size": int(batch), "max_wait_time": int(wait)}
        routes[f"/{name}"] = [Runtime(Model, env=[environment], **together)]
    server.register_runtime(routes)
    server.run()
