"""A collector over gRPC, of OpenTelemetry's own messages and services. Arguments: a folder, into which each
export goes as `NUMBER-SIGNAL`, and what was said beside it as `NUMBER-SIGNAL.headers`; and the file with its own
key and certificates. Prints its ports, in the clear and over TLS, and runs until its stdin ends."""

import itertools
import json
import os
import sys
import threading
from concurrent import futures

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces_grpc

NUMBERS = itertools.count()
ALONE = threading.Lock()


def write(path, data):
    with open(path + ".part", "wb") as file:
        file.write(data)
    os.rename(path + ".part", path)


class Taker:
    def __init__(self, signal, response):
        self.signal, self.response = signal, response

    def Export(self, request, context):
        headers = {pair.key: str(pair.value) for pair in context.invocation_metadata()}
        with ALONE:
            path = os.path.join(sys.argv[1], f"{next(NUMBERS):06}-{self.signal}")
            write(path + ".headers", json.dumps(headers).encode())
            write(path, request.SerializeToString(deterministic=True))
        return self.response()


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    traces_grpc.add_TraceServiceServicer_to_server(Taker("traces", traces.ExportTraceServiceResponse), server)
    metrics_grpc.add_MetricsServiceServicer_to_server(Taker("metrics", metrics.ExportMetricsServiceResponse), server)
    logs_grpc.add_LogsServiceServicer_to_server(Taker("logs", logs.ExportLogsServiceResponse), server)
    with open(sys.argv[2], "rb") as file:
        key, mark, chain = file.read().partition(b"-----BEGIN CERTIFICATE-----")
    credentials = grpc.ssl_server_credentials([(key, mark + chain)])
    ports = server.add_insecure_port("127.0.0.1:0"), server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    print(*ports, flush=True)
    sys.stdin.read()
    server.stop(None)


main()
