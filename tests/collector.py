"""A collector of OpenTelemetry: a real HTTP server on the loopback that takes what processes export."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")


@dataclass(frozen=True)
class CollectedSpan:
    """One span; IDs are in hexadecimal, `error` is its `error.type`."""

    name: str
    kind: str
    service: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, object]
    failed: bool
    events: int

    @property
    def error(self) -> object:
        return self.attributes.get("error.type")


class Collector:
    """What has come: `spans` in the order of their ends, as each process tells them, and `bytes`."""

    def __init__(self) -> None:
        self.spans: list[CollectedSpan] = []
        self.bytes = b""
        self.url = ""

    def named(self, name: str) -> list[CollectedSpan]:
        return [span for span in self.spans if span.name == name]

    def of_trace(self, trace_id: str) -> list[CollectedSpan]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def take(self, body: bytes) -> None:
        self.bytes += body
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = {each.key: each.value.string_value for each in group.resource.attributes}
            for scope in group.scope_spans:
                for span in scope.spans:
                    values = {each.key: each.value for each in span.attributes}
                    self.spans.append(
                        CollectedSpan(
                            name=span.name,
                            kind=_KINDS[span.kind],
                            service=resource["service.name"],
                            trace_id=span.trace_id.hex(),
                            span_id=span.span_id.hex(),
                            parent_id=span.parent_span_id.hex(),
                            links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                            attributes={
                                key: getattr(value, str(value.WhichOneof("value")))
                                for key, value in values.items()
                            },
                            failed=span.status.code == 2,
                            events=len(span.events),
                        )
                    )


@contextmanager
def collecting() -> Iterator[Collector]:
    """Listen, as a collector does at `/v1/traces`."""
    collector = Collector()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces":
                with lock:
                    collector.take(body)
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
