"""An unmodified KServe client, HTTP and gRPC: live, ready, metadata, infer.

Arguments: HOST:PORT of HTTP, HOST:PORT of gRPC, the edge model's ONNX file, the test images. Prints the largest difference.
"""

import asyncio
import sys

import numpy as np
import onnxruntime
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

http_address, grpc_address, model_file, images_file = sys.argv[1:]
MODEL = "fashion"
url = f"http://{http_address}"

session = onnxruntime.InferenceSession(model_file, providers=["CPUExecutionProvider"])
images = np.fromfile(images_file, np.uint8).reshape(-1, 1, 28, 28)[:8].astype(np.float32) / 255
[expected] = session.run(["logits"], {"image": images})
worst = 0.0


def request(binary):
    tensor = InferInput("image", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images, binary_data=binary)
    return InferRequest(model_name=MODEL, infer_inputs=[tensor], request_id="7", parameters={"placement": "edge"})


def compare(response):
    global worst
    assert response.model_name == MODEL and response.id == "7", response
    [output] = response.outputs
    worst = max(worst, float(np.abs(output.as_numpy() - expected).max()))
    assert worst <= 1e-5, worst


async def over_http():
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(url) and await client.is_server_ready(url)
    assert await client.is_model_ready(url, MODEL)
    for binary in (False, True):
        compare(await client.infer(url, request(binary), model_name=MODEL))


async def over_grpc():
    client = InferenceGRPCClient(grpc_address)
    assert await client.is_server_live() and await client.is_server_ready() and await client.is_model_ready(MODEL)
    for binary in (False, True):
        compare(await client.infer(request(binary)))


asyncio.run(over_http())
asyncio.run(over_grpc())
print(f"largest difference {worst:.2e}")
