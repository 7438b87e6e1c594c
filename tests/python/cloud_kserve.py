"""Unmodified KServe clients call the cloud over TLS with a key, and without.

Arguments: HOST:PORT of the cloud, the fleet CA's certificate, a folder of keys, the cloud variant's ONNX file, the test images.
"""

import asyncio
import pathlib
import ssl
import sys

import grpc
import httpx
import numpy as np
import onnxruntime
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

address, ca_file, keys_folder, model_file, images_file = sys.argv[1:]
MODEL = "fashion"
url = f"https://{address}"
key = (pathlib.Path(keys_folder) / "client").read_text().strip()
headers = {"authorization": f"Bearer {key}"}
CA = pathlib.Path(ca_file).read_bytes()
transport = httpx.AsyncHTTPTransport(verify=ssl.create_default_context(cafile=ca_file))

session = onnxruntime.InferenceSession(model_file, providers=["CPUExecutionProvider"])
images = np.fromfile(images_file, np.uint8).reshape(-1, 1, 28, 28)[:8].astype(np.float32) / 255
[expected] = session.run(["logits"], {session.get_inputs()[0].name: images})
worst = 0.0


def request(binary):
    tensor = InferInput("image", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images, binary_data=binary)
    return InferRequest(model_name=MODEL, infer_inputs=[tensor], request_id="7")


def compare(response):
    global worst
    [output] = [o for o in response.outputs if o.name == "logits"]
    worst = max(worst, float(np.abs(output.as_numpy() - expected).max()))
    assert response.id == "7" and worst <= 1e-4, (response, worst)


async def over_http():
    client = InferenceRESTClient(RESTConfig(protocol="v2", transport=transport))
    assert await client.is_server_live(url, headers=headers) and await client.is_server_ready(url, headers=headers)
    assert await client.is_model_ready(url, MODEL, headers=headers)
    for binary in (False, True):
        compare(await client.infer(url, request(binary), model_name=MODEL, headers=headers))
    try:
        await client.infer(url, request(True), model_name=MODEL)
        raise AssertionError("answered without a key")
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == 401, error


async def over_grpc():
    client = InferenceGRPCClient(address, use_ssl=True, creds=grpc.ssl_channel_credentials(CA))
    shown = tuple(headers.items())
    assert await client.is_server_live(headers=shown) and await client.is_server_ready(headers=shown)
    assert await client.is_model_ready(MODEL, headers=shown)
    for binary in (False, True):
        compare(await client.infer(request(binary), headers=shown))
    try:
        await client.infer(request(True))
        raise AssertionError("answered without a key")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error


asyncio.run(over_http())
asyncio.run(over_grpc())
print(f"largest difference {worst:.2e}")
