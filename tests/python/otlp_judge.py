"""Reads what a collector was sent with OpenTelemetry's own messages, and judges the names with its
semantic conventions. Arguments: files whose names end with the signal, each the body of an export. Prints one
JSON object for each span, data point and line of the log."""

import importlib
import json
import math
import pkgutil
import sys

import opentelemetry.semconv._incubating.attributes as incubating
import opentelemetry.semconv.attributes as stable
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

LONG_AGO_NS = 1_600_000_000 * 10**9


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


def named(pairs, names):
    said = attributes(pairs)
    for key in said:
        assert key in names or key.startswith("outrigger."), f"{key} is not OpenTelemetry's"
    return said


def span(span, names):
    assert len(span.trace_id) == 16 and any(span.trace_id), span
    assert len(span.span_id) == 8 and any(span.span_id), span
    assert span.end_time_unix_nano >= span.start_time_unix_nano > LONG_AGO_NS, span
    yield {
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
        "attributes": named(span.attributes, names),
    }


def points(metric, _names):
    kind = metric.WhichOneof("data")
    data = getattr(metric, kind)
    assert metric.name and metric.description, metric
    if kind in ("sum", "histogram"):
        assert data.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE, metric.name
    seen = set()
    for point in data.data_points:
        labels = attributes(point.attributes)
        assert all(isinstance(label, str) for label in labels.values()), labels
        series = tuple(sorted(labels.items()))
        assert series not in seen, f"{metric.name} twice: {series}"
        seen.add(series)
        assert point.time_unix_nano >= point.start_time_unix_nano > LONG_AGO_NS, metric.name
        said = {"name": metric.name, "unit": metric.unit, "kind": kind, "attributes": labels}
        if kind == "histogram":
            assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
            assert list(point.explicit_bounds) == sorted(set(point.explicit_bounds))
            assert sum(point.bucket_counts) == point.count
            yield said | {"value": point.count, "sum": point.sum}
        else:
            number = getattr(point, point.WhichOneof("value"))
            assert math.isfinite(number) and (kind == "gauge" or (data.is_monotonic and number >= 0))
            yield said | {"value": number}


def line(record, names):
    assert record.time_unix_nano > LONG_AGO_NS and record.observed_time_unix_nano, record
    severity = SeverityNumber.Name(record.severity_number).removeprefix("SEVERITY_NUMBER_")
    assert severity == record.severity_text, record
    yield {
        "severity": severity.lower(),
        "text": value(record.body),
        "attributes": named(record.attributes, names),
    }


SIGNALS = {
    "traces": (ExportTraceServiceRequest, "resource_spans", "scope_spans", "spans", span),
    "metrics": (ExportMetricsServiceRequest, "resource_metrics", "scope_metrics", "metrics", points),
    "logs": (ExportLogsServiceRequest, "resource_logs", "scope_logs", "log_records", line),
}


def judge(path, names):
    signal = path.rsplit("-", 1)[1]
    message, resources, scopes, items, say = SIGNALS[signal]
    request = message()
    with open(path, "rb") as file:
        body = file.read()
    request.ParseFromString(body)
    assert request.SerializeToString(deterministic=True) == body, "fields that are not theirs"
    for of_resource in getattr(request, resources):
        resource = attributes(of_resource.resource.attributes)
        assert all(key in names for key in resource), resource
        for of_scope in getattr(of_resource, scopes):
            assert of_scope.scope.name == "outrigger"
            for item in getattr(of_scope, items):
                for said in say(item, names):
                    whose = {"signal": signal, "service": resource["service.name"], "resource": resource}
                    print(json.dumps(whose | said))


def main():
    names = conventional_names()
    for path in sys.argv[1:]:
        judge(path, names)


main()
