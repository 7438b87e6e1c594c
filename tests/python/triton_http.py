"""An unmodified client of the Open Inference Protocol against the agent, beside ONNX Runtime in this process.

Arguments: HOST:PORT of the agent, the edge model's ONNX file, the test images. Prints the largest difference.
"""

import sys

import numpy as np
import onnxruntime
import tritonclient.http as triton

address, model_file, images_file = sys.argv[1:]
client = triton.InferenceServerClient(address)
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("fashion")
assert client.get_server_metadata()["name"] == "outrigger-agent"
metadata = client.get_model_metadata("fashion")
assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 28, 28]}], metadata
assert metadata["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}], metadata

session = onnxruntime.InferenceSession(model_file, providers=["CPUExecutionProvider"])
images = np.fromfile(images_file, np.uint8).reshape(-1, 1, 28, 28)[:32].astype(np.float32) / 255
worst = 0.0
for binary_in in (True, False):
    for binary_out in (True, False):
        for batch in (images[:1], images):
            tensor = triton.InferInput("image", list(batch.shape), "FP32")
            tensor.set_data_from_numpy(batch, binary_data=binary_in)
            wanted = triton.InferRequestedOutput("logits", binary_data=binary_out)
            # The edge's own answer is what in-process ONNX Runtime can be compared with.
            result = client.infer("fashion", [tensor], outputs=[wanted], timeout=2_000_000, parameters={"placement": "edge"})
            response = result.get_response()
            assert response["parameters"]["placement"] == "edge", response
            [expected] = session.run(["logits"], {"image": batch})
            worst = max(worst, float(np.abs(result.as_numpy("logits") - expected).max()))
assert worst <= 1e-5, worst

try:
    client.get_model_metadata("nothing")
    raise AssertionError("an unknown model must be an error")
except triton.InferenceServerException as error:
    assert "nothing" in str(error), error
print(f"largest difference {worst:.2e}")
