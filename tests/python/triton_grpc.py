"""An unmodified client of the Open Inference Protocol over gRPC, beside ONNX Runtime in this process: every call of its class.

Arguments: HOST:PORT of the agent, its Unix socket, the edge model's ONNX file, the test images. Prints the largest difference.
"""

import asyncio
import queue
import sys

import numpy as np
import onnxruntime
import tritonclient.grpc as triton
import tritonclient.grpc.aio

address, socket_path, model_file, images_file = sys.argv[1:]
client = triton.InferenceServerClient(address)
MODEL = "fashion"


def refused(what, call, code):
    try:
        call()
    except triton.InferenceServerException as error:
        assert error.status() == f"StatusCode.{code}" and error.message(), (what, error.status(), error.message())
        return error.message()
    raise AssertionError(f"{what} must be an error")


# What is said about the server and the model.
assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready(MODEL) and client.is_model_ready(MODEL, "1")
assert not client.is_model_ready("nothing") and not client.is_model_ready(MODEL, "9")
server = client.get_server_metadata()
assert server.name == "outrigger-agent" and "statistics" in server.extensions, server
assert client.get_server_metadata(as_json=True)["name"] == "outrigger-agent"
for version in ("", "1"):
    metadata = client.get_model_metadata(MODEL, version)
    assert [(i.name, i.datatype, list(i.shape)) for i in metadata.inputs] == [("image", "FP32", [-1, 1, 28, 28])]
    assert [(o.name, o.datatype, list(o.shape)) for o in metadata.outputs][0] == ("logits", "FP32", [-1, 10])
    assert [o.name for o in metadata.outputs] == ["logits", "label", "probability"], metadata
    config = client.get_model_config(MODEL, version).config
    assert config.max_batch_size >= 32 and list(config.input[0].dims) == [1, 28, 28], config
    assert config.backend == "onnxruntime" and config.version_policy.latest.num_versions == 1, config
assert [(m.name, m.state) for m in client.get_model_repository_index().models] == [(MODEL, "READY")]

# Inference.
session = onnxruntime.InferenceSession(model_file, providers=["CPUExecutionProvider"])
images = np.fromfile(images_file, np.uint8).reshape(-1, 1, 28, 28)[:32].astype(np.float32) / 255
[expected] = session.run(["logits"], {"image": images})
edge = {"placement": "edge"}
worst = 0.0


def image_input(batch):
    tensor = triton.InferInput("image", list(batch.shape), "FP32")
    tensor.set_data_from_numpy(batch)
    return [tensor]


def compare(result, expected):
    global worst
    worst = max(worst, float(np.abs(result.as_numpy("logits") - expected).max()))
    assert worst <= 1e-5, worst


logits = [triton.InferRequestedOutput("logits")]
for count in (1, 32):
    batch = image_input(images[:count])
    result = client.infer(MODEL, batch, outputs=logits, timeout=2_000_000, priority=1, request_id="7", parameters=edge)
    response = result.get_response()
    assert response.id == "7" and response.parameters["placement"].string_param == "edge", response
    compare(result, expected[:count])
for algorithm in ("gzip", "deflate"):
    compare(client.infer(MODEL, image_input(images), compression_algorithm=algorithm, parameters=edge), expected)

typed = triton.service_pb2.ModelInferRequest(model_name=MODEL)
typed.parameters["placement"].string_param = "edge"
tensor = typed.inputs.add(name="image", datatype="FP32", shape=[1, 1, 28, 28])
tensor.contents.fp32_contents.extend(images[0].ravel().tolist())
compare(triton.InferResult(client._client_stub.ModelInfer(typed)), expected[:1])

answers = queue.Queue()
for i in range(8):
    client.async_infer(MODEL, image_input(images[i : i + 1]), lambda result, error: answers.put((result, error)), request_id=str(i), parameters=edge)
for _ in range(8):
    result, error = answers.get(timeout=10)
    assert error is None, error
    i = int(result.get_response().id)
    compare(result, expected[i : i + 1])
refused("version 9", lambda: client.infer(MODEL, image_input(images), model_version="9"), "NOT_FOUND")
refused("a sequence", lambda: client.infer(MODEL, image_input(images), sequence_id=7), "INVALID_ARGUMENT")
refused("a wrong shape", lambda: client.infer(MODEL, image_input(images[:, :, :27])), "INVALID_ARGUMENT")
heavy = image_input(np.repeat(images, 64, 0))
refused("one microsecond", lambda: client.infer(MODEL, heavy, timeout=1), "DEADLINE_EXCEEDED")
refused("the call's own deadline", lambda: client.infer(MODEL, heavy, client_timeout=0.002), "DEADLINE_EXCEEDED")
wanted = [triton.InferRequestedOutput("logits", class_count=3)]
classes = client.infer(MODEL, image_input(images), outputs=wanted, parameters=edge).as_numpy("logits")
assert classes.shape == (32, 3), classes
for item, row in zip(classes, expected):
    assert [int(text.split(b":")[1]) for text in item] == list(np.argsort(-row, kind="stable")[:3]), (item, row)

# A stream: answers in the order of the requests, an error in between, and the stream goes on.
client.start_stream(lambda result, error: answers.put((result, error)))
for i in range(24):
    batch = image_input(images[:, :, :27]) if i == 5 else image_input(images[i : i + 1])
    client.async_stream_infer(MODEL, batch, request_id=str(i), parameters=edge, enable_empty_final_response=i == 23)
for i in range(24):
    result, error = answers.get(timeout=10)
    if i == 5:
        assert result is None and error.message(), error
        continue
    assert error is None and result.get_response().id == str(i), (i, error)
    compare(result, expected[i : i + 1])
assert result.get_response().parameters["triton_final_response"].bool_param
client.stop_stream()

# Statistics count what was asked for.
for statistics in (client.get_inference_statistics(MODEL, "1"), client.get_inference_statistics()):
    [entry] = statistics.model_stats
    stats = entry.inference_stats
    assert entry.inference_count > 32 * 4 and stats.success.count >= 36 and stats.fail.count >= 3, entry
    assert stats.compute_infer.ns > 0 and stats.compute_infer.count == entry.execution_count, entry

# Load and unload are for the Unix socket only, and take no files and no configuration anywhere.
for call in (client.load_model, client.unload_model):
    assert "Unix socket" in refused("over TCP", lambda: call(MODEL), "PERMISSION_DENIED")
# gRPC's C core names a socket's path as the authority, which HTTP/2 servers need not take.
local = triton.InferenceServerClient(f"unix:{socket_path}", channel_args=[("grpc.default_authority", "localhost")])
refused("files", lambda: local.load_model(MODEL, config="{}", files={"file:1/model.onnx": b"model"}), "PERMISSION_DENIED")
refused("a configuration", lambda: local.load_model(MODEL, config="{}"), "PERMISSION_DENIED")
refused("an absent model", lambda: local.load_model("nothing"), "NOT_FOUND")
local.unload_model(MODEL)
assert not client.is_model_ready(MODEL) and not client.is_server_ready()
refused("an unloaded model", lambda: client.infer(MODEL, image_input(images)), "NOT_FOUND")
[entry] = client.get_model_repository_index().models
assert entry.state == "UNAVAILABLE" and entry.reason, entry
local.load_model(MODEL)
assert client.is_model_ready(MODEL)
compare(local.infer(MODEL, image_input(images), parameters=edge), expected)

# What is not served answers with the standard's error.
unimplemented = {
    "trace settings": lambda: client.get_trace_settings(),
    "new trace settings": lambda: client.update_trace_settings(MODEL, {"trace_level": ["OFF"]}),
    "log settings": lambda: client.get_log_settings(),
    "new log settings": lambda: client.update_log_settings({"log_info": True}),
    "shared memory": lambda: client.get_system_shared_memory_status(),
    "registering": lambda: client.register_system_shared_memory("a", "/a", 4),
    "unregistering": lambda: client.unregister_system_shared_memory("a"),
    "CUDA memory": lambda: client.get_cuda_shared_memory_status(),
    "CUDA registering": lambda: client.register_cuda_shared_memory("a", b"AA==", 0, 4),
    "CUDA unregistering": lambda: client.unregister_cuda_shared_memory(),
}
for what, call in unimplemented.items():
    refused(what, call, "UNIMPLEMENTED")
for what, call in {
    "model metadata": lambda: client.get_model_metadata("nothing"),
    "model configuration": lambda: client.get_model_config("nothing"),
    "statistics": lambda: client.get_inference_statistics("nothing"),
}.items():
    refused(what, call, "NOT_FOUND")


async def asynchronous():
    async with triton.aio.InferenceServerClient(address) as other:
        assert await other.is_server_live() and await other.is_server_ready() and await other.is_model_ready(MODEL)
        calls = [other.infer(MODEL, image_input(images[i : i + 1]), parameters=edge) for i in range(16)]
        for i, result in enumerate(await asyncio.gather(*calls)):
            compare(result, expected[i : i + 1])

        async def requests():
            for i in range(4):
                yield {"model_name": MODEL, "inputs": image_input(images[i : i + 1]), "parameters": edge}

        i = 0
        async for result, error in other.stream_infer(requests()):
            assert error is None, error
            compare(result, expected[i : i + 1])
            i += 1
        assert i == 4


asyncio.run(asynchronous())
client.close()
print(f"largest difference {worst:.2e}")
