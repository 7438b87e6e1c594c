"""Asks DuckDB the same. Arguments: the dataset's folder, and the question. Prints a JSON object for each row, and
one with how long the question alone took."""

import json
import sys
import time

import duckdb

folder, question = sys.argv[1:]
connection = duckdb.connect()
begun = time.perf_counter()
files = f"read_parquet('{folder}/inference/*/*/*.parquet', hive_partitioning = true, hive_types_autocast = false)"
cursor = connection.execute(question.replace("FROM inference", f"FROM {files}"))
names = [column[0] for column in cursor.description]
rows = cursor.fetchall()
took_s = time.perf_counter() - begun
for row in rows:
    print(json.dumps(dict(zip(names, row))))
print(json.dumps({"took_s": took_s}))
