"""Unmodified clients of the Open Inference Protocol call the cloud over TLS with a key, and without a good one.

Arguments: HOST:PORT of the cloud, the fleet CA's certificate, a folder of keys (client, operator, expired, revoked, other: one a
file), the cloud variant's ONNX file, the test images. Prints the largest difference to ONNX Runtime in this process.
"""

import faulthandler
import pathlib
import queue
import sys

import grpc
import numpy as np
import onnxruntime
import tritonclient.grpc
import tritonclient.http
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from tritonclient.utils import InferenceServerException

faulthandler.dump_traceback_later(120, exit=True)  # a call that never ends says where
address, ca_file, keys_folder, model_file, images_file = sys.argv[1:]
MODEL = "fashion"
PATIENT = {"timeout": 10_000_000}  # a busy machine is no reason to fail
KEYS = {name: (pathlib.Path(keys_folder) / name).read_text().strip() for name in ("client", "operator", "expired", "revoked", "other")}
KEYS["wrong"] = KEYS["client"].split(".")[0] + "." + "0" * 64
KEYS["unknown"] = "0123456789abcdef." + KEYS["client"].split(".")[1]
KEYS["none"] = None
CA = pathlib.Path(ca_file).read_bytes()


class Key:
    """What the client's own plugins do: a header on every call."""

    def __init__(self, key):
        self.key = key

    def __call__(self, request):
        if self.key:
            request.headers["authorization"] = f"Bearer {self.key}"


def over_http(name):
    client = tritonclient.http.InferenceServerClient(address, ssl=True, ssl_options={"ca_certs": ca_file})
    client.register_plugin(Key(KEYS[name]))
    return client


def over_grpc(name):
    client = tritonclient.grpc.InferenceServerClient(address, ssl=True, root_certificates=ca_file)
    client.register_plugin(Key(KEYS[name]))
    return client


session = onnxruntime.InferenceSession(model_file, providers=["CPUExecutionProvider"])
images = np.fromfile(images_file, np.uint8).reshape(-1, 1, 28, 28)[:32].astype(np.float32) / 255
[expected] = session.run(["logits"], {session.get_inputs()[0].name: images})
worst = 0.0


def compare(actual, expected):
    global worst
    worst = max(worst, float(np.abs(actual - expected).max()))
    assert worst <= 1e-4, worst


def tensor(api, batch, **how):
    made = api.InferInput("image", list(batch.shape), "FP32")
    made.set_data_from_numpy(batch, **how)
    return [made]


def status_of(call):
    try:
        call()
    except InferenceServerException as error:
        assert error.message(), error
        return error.status().removeprefix("StatusCode.")
    return "OK"


# With a key: all that is said, and inference in every form.
for api, client in ((tritonclient.http, over_http("client")), (tritonclient.grpc, over_grpc("client"))):
    is_http = api is tritonclient.http
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL), api
    assert not client.is_model_ready("nothing") and not client.is_model_ready(MODEL, "9"), api
    server = client.get_server_metadata() if is_http else client.get_server_metadata(as_json=True)
    assert server["name"] == "outrigger-cloud", server
    config = client.get_model_config(MODEL) if is_http else client.get_model_config(MODEL, as_json=True)["config"]
    assert config["backend"] == "onnxruntime", config
    for version in ("", "1"):
        compare(client.infer(MODEL, tensor(api, images), version, priority=1, **PATIENT).as_numpy("logits"), expected)
    wanted = [api.InferRequestedOutput("logits", class_count=3)]
    classes = client.infer(MODEL, tensor(api, images), outputs=wanted, **PATIENT).as_numpy("logits")
    assert classes.shape == (32, 3) and classes[0][0].count(b":") == 2, classes[0]
    assert [int(text.split(b":")[1]) for text in classes[:, 0]] == list(expected.argmax(1)), classes
    statistics = client.get_inference_statistics(MODEL) if is_http else client.get_inference_statistics(MODEL, as_json=True)
    assert int(statistics["model_stats"][0]["inference_count"]) >= 96, statistics
    late = status_of(lambda: client.infer(MODEL, tensor(api, np.repeat(images, 8, 0)), timeout=1))
    assert late in ("504", "DEADLINE_EXCEEDED"), late
    for call in (client.load_model, client.unload_model):
        assert status_of(lambda: call(MODEL)) in ("403", "PERMISSION_DENIED"), "a client changes nothing"
http = over_http("client")
for how in ({"binary_data": False}, {"binary_data": True}):
    compare(http.infer(MODEL, tensor(tritonclient.http, images, **how), **PATIENT).as_numpy("logits"), expected)
for algorithm in ("gzip", "deflate"):
    compressed = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    compare(http.infer(MODEL, tensor(tritonclient.http, images), **compressed, **PATIENT).as_numpy("logits"), expected)
over = over_grpc("client")
compare(over.infer(MODEL, tensor(tritonclient.grpc, images), compression_algorithm="gzip", **PATIENT).as_numpy("logits"), expected)
answers = queue.Queue()
over.start_stream(lambda result, error: answers.put((result, error)), headers={"authorization": f"Bearer {KEYS['client']}"})
for i in range(16):
    over.async_stream_infer(MODEL, tensor(tritonclient.grpc, images[i : i + 1]), request_id=str(i), **PATIENT)
for i in range(16):
    result, error = answers.get(timeout=10)
    assert error is None and result.get_response().id == str(i), (i, str(error))
    compare(result.as_numpy("logits"), expected[i : i + 1])
over.stop_stream()

# An operator loads and unloads.
operator = over_http("operator")
operator.unload_model(MODEL)
assert not http.is_model_ready(MODEL) and not over.is_model_ready(MODEL)
assert status_of(lambda: http.infer(MODEL, tensor(tritonclient.http, images))) == "404"
operator.load_model(MODEL)
compare(http.infer(MODEL, tensor(tritonclient.http, images), **PATIENT).as_numpy("logits"), expected)

# Without a good key only liveness answers.
for name in ("none", "wrong", "unknown", "expired", "revoked"):
    for api, client, refused in (
        (tritonclient.http, over_http(name), "401"),
        (tritonclient.grpc, over_grpc(name), "UNAUTHENTICATED"),
    ):
        assert client.is_server_live(), name
        calls = [lambda: client.infer(MODEL, tensor(api, images))]
        if name == "none":  # an address may fail twenty times at once, and here are five kinds of failure
            calls += [client.get_server_metadata, client.get_model_repository_index]
        for call in calls:
            assert status_of(call) == refused, (name, api)
for api, client, refused in (
    (tritonclient.http, over_http("other"), "403"),
    (tritonclient.grpc, over_grpc("other"), "PERMISSION_DENIED"),
):
    assert client.is_server_ready() and status_of(lambda: client.infer(MODEL, tensor(api, images))) == refused, api

# Reflection: the service is learnt from the server, and called with what was learnt.
token = grpc.access_token_call_credentials(KEYS["client"])
credentials = grpc.composite_channel_credentials(grpc.ssl_channel_credentials(CA), token)
with grpc.secure_channel(address, credentials) as channel:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "inference.GRPCInferenceService" in database.get_services(), database.get_services()
    pool = DescriptorPool(database)
    method = pool.FindServiceByName("inference.GRPCInferenceService").FindMethodByName("ModelReady")
    request, answer = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    call = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelReady", request.SerializeToString, answer.FromString
    )
    assert call(request(name=MODEL)).ready
with grpc.secure_channel(address, grpc.ssl_channel_credentials(CA)) as channel:
    try:
        ProtoReflectionDescriptorDatabase(channel).get_services()
        raise AssertionError("reflection without a key")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error
print(f"largest difference {worst:.2e}")
