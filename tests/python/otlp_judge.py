"""Reads what a collector was sent with OpenTelemetry's own messages, and judges the names with its
semantic conventions. Arguments: files, each the body of an export. Prints one JSON object for each span."""

import importlib
import json
import pkgutil
import sys

import opentelemetry.semconv._incubating.attributes as incubating
import opentelemetry.semconv.attributes as stable
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


def conventional_names():
    names = set()
    for package in (stable, incubating):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            values = vars(importlib.import_module(module.name)).values()
            names.update(value for value in values if isinstance(value, str))
    return names


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


def attributes(pairs):
    keys = [pair.key for pair in pairs]
    assert len(keys) == len(set(keys)), f"an attribute twice: {keys}"
    return {pair.key: value(pair.value) for pair in pairs}


def check(span, names):
    assert len(span.trace_id) == 16 and any(span.trace_id), span
    assert len(span.span_id) == 8 and any(span.span_id), span
    assert span.end_time_unix_nano >= span.start_time_unix_nano > 1_600_000_000 * 10**9, span
    for key in attributes(span.attributes):
        assert key in names or key.startswith("outrigger."), f"{key} is not OpenTelemetry's"


def say(span, resource):
    said = {
        "service": resource["service.name"],
        "trace": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "state": span.trace_state,
        "remote": bool(span.flags & 0x200),
        "sampled": bool(span.flags & 1),
        "name": span.name,
        "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        "start_ns": span.start_time_unix_nano,
        "end_ns": span.end_time_unix_nano,
        "status": Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_").lower(),
        "attributes": attributes(span.attributes),
    }
    print(json.dumps(said))


def main():
    names = conventional_names()
    for path in sys.argv[1:]:
        request = ExportTraceServiceRequest()
        with open(path, "rb") as file:
            body = file.read()
        request.ParseFromString(body)
        assert request.SerializeToString(deterministic=True) == body, "fields that are not theirs"
        for of_resource in request.resource_spans:
            resource = attributes(of_resource.resource.attributes)
            assert all(key in names for key in resource), resource
            for of_scope in of_resource.scope_spans:
                assert of_scope.scope.name == "outrigger"
                for span in of_scope.spans:
                    check(span, names)
                    say(span, resource)


main()
