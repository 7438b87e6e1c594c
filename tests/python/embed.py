"""Sentence embeddings by onnxruntime and tokenizers alone: tokens, model, mean over the tokens, length 1.

Arguments: the ONNX file, tokenizer.json, the sentences. Prints a JSON list of vectors.
"""

import json
import sys

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

model_file, tokenizer_file, *sentences = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model_file, options, providers=["CPUExecutionProvider"])
tokenizer = Tokenizer.from_file(tokenizer_file)
tokenizer.no_padding()
tokenizer.enable_truncation(256)

vectors = []
for sentence in sentences:
    tokens = tokenizer.encode(sentence)
    feed = {"input_ids": tokens.ids, "attention_mask": tokens.attention_mask, "token_type_ids": tokens.type_ids}
    [hidden] = session.run(["last_hidden_state"], {name: np.array([values], np.int64) for name, values in feed.items()})
    mean = hidden[0].astype(np.float64).mean(0)
    vectors.append((mean / np.linalg.norm(mean)).tolist())
print(json.dumps(vectors))
