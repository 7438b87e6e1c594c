"""Streams with state through an unmodified client: sequences over gRPC streams, unary gRPC and HTTP, interleaved.

Arguments: HOST:PORT of the agent's HTTP and of its gRPC. Its models: `total` (y is the sum of all x so far) and `sums` (WAV or samples,
frames of 4 with 1 of context, each with the sum of all frames so far). Prints how many answers were compared.
"""

import queue
import sys

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http

http_address, grpc_address = sys.argv[1:]
client = grpc.InferenceServerClient(grpc_address)
web = http.InferenceServerClient(http_address)
compared = 0


def tensor(library, name, values):
    array = np.asarray(values, np.float32).reshape(1, -1)
    made = library.InferInput(name, list(array.shape), "FP32")
    made.set_data_from_numpy(array)
    return [made]


def equal(actual, expected):
    global compared
    assert actual.tobytes() == expected.tobytes(), (actual, expected)
    compared += 1


# What the configuration says, for clients that look there.
config = client.get_model_config("total").config
assert config.HasField("sequence_batching") and config.max_batch_size == 0, config
assert config.sequence_batching.max_sequence_idle_microseconds == 60_000_000, config
assert config.sequence_batching.oldest.max_candidate_sequences == 256, config
assert "sequence_batching" in web.get_model_config("sums")
assert "sequence" in client.get_server_metadata().extensions

# Two sequences, one with a number and one with a name, interleaved on one stream, many in flight.
generator = np.random.default_rng(7)
pieces = {7: generator.normal(size=(60, 2)).astype(np.float32), "microphone": generator.normal(size=(60, 2)).astype(np.float32)}
answers = queue.Queue()
client.start_stream(lambda result, error: answers.put((result, error)))
for i in range(60):
    for key, values in pieces.items():
        client.async_stream_infer(
            "total", tensor(grpc, "x", values[i]), request_id=f"{key} {i}", sequence_id=key, sequence_start=i == 0, sequence_end=i == 59
        )
totals = {key: np.zeros(2, np.float32) for key in pieces}
for i in range(60):
    for key, values in pieces.items():
        result, error = answers.get(timeout=30)
        assert error is None, error
        response = result.get_response()
        assert response.id == f"{key} {i}" and response.parameters["reason"].string_param == "sequence", response
        totals[key] = totals[key] + values[i]
        equal(result.as_numpy("y")[0], totals[key])
# After the end the sequence is not there any more, and the stream goes on.
client.async_stream_infer("total", tensor(grpc, "x", [1, 1]), sequence_id=7)
result, error = answers.get(timeout=30)
assert result is None and "begin it again with sequence_start" in error.message(), error
client.stop_stream()

# One sequence by turns over gRPC and HTTP: it belongs to the caller, not to a connection.
total = np.zeros(2, np.float32)
for i, piece in enumerate(pieces[7][:10]):
    library, caller = ((grpc, client), (http, web))[i % 2]
    sequence = {"sequence_id": 9, "sequence_start": i == 0, "sequence_end": i == 9}
    result = caller.infer("total", tensor(library, "x", piece), **sequence)
    total = total + piece
    equal(result.as_numpy("y")[0], total)
for library, caller, code in ((grpc, client, "StatusCode.INVALID_ARGUMENT"), (http, web, "400")):
    try:
        caller.infer("total", tensor(library, "x", [1, 1]), sequence_id=9)
        raise AssertionError("the sequence is over")
    except library.InferenceServerException as error:
        assert error.status() == code and "unknown or expired" in error.message(), error

# A sound in pieces of any length is bit for bit the whole sound, its padded end too.
sound = generator.normal(size=1001).astype(np.float32)
whole = web.infer("sums", tensor(http, "audio", sound)).as_numpy("y")
assert whole.shape == (251, 1), whole.shape
for size in (1, 3, 4, 64, 777, 1001):
    parts = [sound[i : i + size] for i in range(0, len(sound), size)]
    client.start_stream(lambda result, error: answers.put((result, error)))
    for i, part in enumerate(parts):
        sequence = {"sequence_id": size, "sequence_start": i == 0, "sequence_end": i == len(parts) - 1}
        client.async_stream_infer("sums", tensor(grpc, "audio", part), **sequence)
    streamed = []
    for _ in parts:
        result, error = answers.get(timeout=30)
        assert error is None, error
        streamed.append(result.as_numpy("y"))
    client.stop_stream()
    equal(np.concatenate(streamed), whole)
print(f"{compared} answers compared")
