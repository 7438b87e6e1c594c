"""An unmodified client of the Open Inference Protocol over HTTP, beside ONNX Runtime in this process: every call of its class.

Arguments: HOST:PORT of the agent, its Unix socket, the edge model's ONNX file, the test images. Prints the largest difference.
"""

import asyncio
import http.client
import json
import socket
import sys

import numpy as np
import onnxruntime
import tritonclient.http as triton
import tritonclient.http.aio

address, socket_path, model_file, images_file = sys.argv[1:]
client = triton.InferenceServerClient(address, concurrency=4)
MODEL = "fashion"


def refused(what, call, status):
    """The call is refused with this status, in the standard's shape: without it the client has no message."""
    try:
        call()
    except triton.InferenceServerException as error:
        assert error.status() == str(status) and error.message(), (what, error.status(), error.message())
        return error.message()
    raise AssertionError(f"{what} must be an error")


# What is said about the server and the model.
assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready(MODEL) and client.is_model_ready(MODEL, "1")
assert not client.is_model_ready("nothing") and not client.is_model_ready(MODEL, "9")
server = client.get_server_metadata(headers={"X-Anything": "1"}, query_params={"a": "b"})
assert server["name"] == "outrigger-agent" and "classification" in server["extensions"], server
for version in ("", "1"):
    metadata = client.get_model_metadata(MODEL, version)
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 28, 28]}], metadata
    assert metadata["outputs"][0] == {"name": "logits", "datatype": "FP32", "shape": [-1, 10]}, metadata
    assert [output["name"] for output in metadata["outputs"]] == ["logits", "label", "probability"], metadata
    config = client.get_model_config(MODEL, version)
    assert config["max_batch_size"] >= 32 and config["backend"] == "onnxruntime", config
    assert config["input"][0]["dims"] == [1, 28, 28] and config["input"][0]["data_type"] == "TYPE_FP32", config
assert [(m["name"], m["state"]) for m in client.get_model_repository_index()] == [(MODEL, "READY")]

# Inference, in every form of input and output.
session = onnxruntime.InferenceSession(model_file, providers=["CPUExecutionProvider"])
images = np.fromfile(images_file, np.uint8).reshape(-1, 1, 28, 28)[:32].astype(np.float32) / 255
[expected] = session.run(["logits"], {"image": images})
edge = {"placement": "edge"}  # the edge's own answer is what in-process ONNX Runtime can be compared with
worst = 0.0


def image_input(batch, binary=True):
    tensor = triton.InferInput("image", list(batch.shape), "FP32")
    tensor.set_data_from_numpy(batch, binary_data=binary)
    return [tensor]


def compare(result, expected):
    global worst
    worst = max(worst, float(np.abs(result.as_numpy("logits") - expected).max()))
    assert worst <= 1e-5, worst


for binary_in in (True, False):
    for binary_out in (True, False):
        for count in (1, 32):
            wanted = [triton.InferRequestedOutput("logits", binary_data=binary_out)]
            batch = image_input(images[:count], binary_in)
            result = client.infer(MODEL, batch, outputs=wanted, timeout=2_000_000, priority=1, parameters=edge)
            response = result.get_response()
            assert response["parameters"]["placement"] == "edge", response
            compare(result, expected[:count])
for algorithm in ("gzip", "deflate"):
    compressed = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    compare(client.infer(MODEL, image_input(images), parameters=edge, **compressed), expected)
named = client.infer(MODEL, image_input(images), model_version="1", request_id="7", parameters=edge)
assert named.get_response()["id"] == "7" and named.get_output("logits")["shape"] == [32, 10]
body, json_size = triton.InferenceServerClient.generate_request_body(image_input(images[:1]), parameters=edge)
assert json_size is not None and len(body) > json_size
pending = [client.async_infer(MODEL, image_input(images[i : i + 1]), parameters=edge) for i in range(8)]
for i, call in enumerate(pending):
    compare(call.get_result(), expected[i : i + 1])
refused("version 9", lambda: client.infer(MODEL, image_input(images), model_version="9"), 404)
refused("a sequence", lambda: client.infer(MODEL, image_input(images), sequence_id=7, sequence_start=True), 400)
refused("a wrong shape", lambda: client.infer(MODEL, image_input(images[:, :, :27])), 400)
late = refused("one microsecond", lambda: client.infer(MODEL, image_input(np.repeat(images, 64, 0)), timeout=1), 504)
assert "allow more time" in late, late

# Classification: value:index:label, the greatest first.
for binary_out in (True, False):
    wanted = [triton.InferRequestedOutput("logits", binary_data=binary_out, class_count=3)]
    classes = client.infer(MODEL, image_input(images), outputs=wanted, parameters=edge).as_numpy("logits")
    assert classes.shape == (32, 3) and classes.dtype == np.object_, classes
    for item, row in zip(classes, expected):
        values = [text.decode() if isinstance(text, bytes) else text for text in item]
        assert [int(text.split(":")[1]) for text in values] == list(np.argsort(-row, kind="stable")[:3]), (values, row)
        assert abs(float(values[0].split(":")[0]) - row.max()) < 1e-4 and values[0].count(":") == 2, values

# Statistics count what was asked for.
for statistics in (
    client.get_inference_statistics(MODEL)["model_stats"],
    client.get_inference_statistics(MODEL, "1")["model_stats"],
    client.get_inference_statistics()["model_stats"],
):
    [entry] = statistics
    stats = entry["inference_stats"]
    assert entry["name"] == MODEL and entry["version"] == "1" and entry["inference_count"] > 32 * 8, entry
    assert stats["success"]["count"] >= 20 and stats["fail"]["count"] >= 2, entry
    assert stats["compute_infer"]["ns"] > 0 and entry["last_inference"] > 1_600_000_000_000, entry

# Load and unload are for the Unix socket only, and take no files and no configuration anywhere.
for call in (client.load_model, client.unload_model):
    assert "Unix socket" in refused("over TCP", lambda: call(MODEL), 403)


class OverSocket(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(socket_path)


def post(path, body=None):
    connection = OverSocket("localhost")
    connection.request("POST", path, json.dumps(body or {}))
    answer = connection.getresponse()
    return answer.status, answer.read()


repository = f"/v2/repository/models/{MODEL}"
for parameters in ({"config": "{}"}, {"file:1/model.onnx": "AAAA"}):
    status, answer = post(repository + "/load", {"parameters": parameters})
    assert status == 403 and b"signed" in json.loads(answer)["error"].encode(), (status, answer)
assert post(repository + "/unload", {"parameters": {"unload_dependents": False}})[0] == 200
assert not client.is_model_ready(MODEL) and not client.is_server_ready()
assert "unloaded" in refused("an unloaded model", lambda: client.infer(MODEL, image_input(images)), 404)
[entry] = client.get_model_repository_index()
assert entry["state"] == "UNAVAILABLE" and entry["reason"], entry
[before] = client.get_inference_statistics(MODEL)["model_stats"]
assert post(repository + "/load")[0] == 200 and client.is_model_ready(MODEL)
assert post("/v2/repository/models/nothing/load")[0] == 404
compare(client.infer(MODEL, image_input(images), parameters=edge), expected)
[after] = client.get_inference_statistics(MODEL)["model_stats"]
assert after["inference_count"] == before["inference_count"] + 32, "an unloaded model keeps its counters"

# What is not served answers with the standard's error.
absent = {
    "model metadata": lambda: client.get_model_metadata("nothing"),
    "model configuration": lambda: client.get_model_config("nothing"),
    "statistics": lambda: client.get_inference_statistics("nothing"),
    "trace settings": lambda: client.get_trace_settings(),
    "trace settings of a model": lambda: client.update_trace_settings(MODEL, {"trace_level": ["OFF"]}),
    "log settings": lambda: client.get_log_settings(),
    "new log settings": lambda: client.update_log_settings({"log_info": True}),
    "shared memory": lambda: client.get_system_shared_memory_status(),
    "registering": lambda: client.register_system_shared_memory("a", "/a", 4),
    "unregistering": lambda: client.unregister_system_shared_memory("a"),
    "CUDA memory": lambda: client.get_cuda_shared_memory_status(),
    "CUDA registering": lambda: client.register_cuda_shared_memory("a", b"AA==", 0, 4),
    "CUDA unregistering": lambda: client.unregister_cuda_shared_memory(),
}
for what, call in absent.items():
    refused(what, call, 404)


async def asynchronous():
    async with triton.aio.InferenceServerClient(address) as other:
        assert await other.is_server_live() and await other.is_server_ready() and await other.is_model_ready(MODEL)
        assert (await other.get_model_config(MODEL))["name"] == MODEL
        calls = [other.infer(MODEL, image_input(images[i : i + 1]), parameters=edge) for i in range(16)]
        for i, result in enumerate(await asyncio.gather(*calls)):
            compare(result, expected[i : i + 1])


asyncio.run(asynchronous())
client.close()
print(f"largest difference {worst:.2e}")
