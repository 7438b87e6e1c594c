"""Images a second of one model in this process, in batches: the yardstick for `bench gpu`.
Arguments: model, provider, batch, seconds. Prints one JSON object."""

import json
import sys
import time

import numpy as np
import onnxruntime

model, provider, batch, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options, providers=[provider])
images = np.random.default_rng(1).standard_normal((batch, 3, 224, 224)).astype(np.float32)
for _ in range(3):
    session.run(None, {"image": images})
begin, count = time.perf_counter(), 0
while time.perf_counter() - begin < seconds:
    session.run(None, {"image": images})
    count += batch
elapsed = time.perf_counter() - begin
print(json.dumps({"images_per_s": count / elapsed, "used": session.get_providers()[0]}))
