"""A collector of traces: OTLP over HTTP, as the SDK's own exporter speaks it."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanOnTheWire
from opentelemetry.proto.trace.v1.trace_pb2 import Status

PATH = "/v1/traces"


@dataclass(frozen=True)
class Span:
    """One that was exported.

    Attributes:
        trace_id, span_id, parent_id: in hexadecimal digits; no parent is an empty text.
        links: trace and span that it links to.
        seconds: from its start to its end.
        resource: the attributes of what has sent it.
    """

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    trace_state: str
    links: list[tuple[str, str]]
    is_error: bool
    started_at: float
    seconds: float
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]

    @property
    def id(self) -> tuple[str, str]:
        """What a link to it names."""
        return self.trace_id, self.span_id


class Collector(ThreadingHTTPServer):
    """Takes spans while it runs. Its threads share what it was sent, and `_lock` guards that.

    Attributes:
        status: what it answers with; a test changes it.
        hangs: whether it gives no answer, until it is False again, or is closed.
        headers: of the last export.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.hangs = False
        self.headers: Mapping[str, str] = {}
        self.is_over = threading.Event()
        self._lock = threading.Lock()
        self._spans: list[Span] = []
        self._exports = 0

    @property
    def environ(self) -> dict[str, str]:
        """What has a program send it traces, at once."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }

    @property
    def exports(self) -> int:
        """How often somebody has sent spans, whatever became of them."""
        with self._lock:
            return self._exports

    @property
    def spans(self) -> list[Span]:
        with self._lock:
            return list(self._spans)

    @property
    def of_messages(self) -> list[Span]:
        return [span for span in self.spans if span.kind == "CONSUMER"]

    @property
    def of_requests(self) -> list[Span]:
        return [span for span in self.spans if span.kind == "SERVER"]

    def take(self, headers: Mapping[str, str], body: bytes) -> None:
        with self._lock:
            self._exports += 1
            self.headers = headers
        while self.hangs and not self.is_over.wait(0.02):
            pass
        if self.status == 200 and not self.hangs:
            spans = list(_read(body))
            with self._lock:
                self._spans += spans


class _Handler(BaseHTTPRequestHandler):
    server: Collector
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.take(dict(self.headers.items()), body)
        with contextlib.suppress(OSError):  # who waited for it has left
            self.send_response(self.server.status if self.path == PATH else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def _read(body: bytes) -> Iterator[Span]:
    for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _values(sent.resource.attributes)
        for scope in sent.scope_spans:
            for span in scope.spans:
                yield _span(span, resource)


def _span(span: SpanOnTheWire, resource: Mapping[str, Any]) -> Span:
    return Span(
        name=span.name,
        kind=SpanOnTheWire.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        trace_state=span.trace_state,
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        is_error=span.status.code == Status.STATUS_CODE_ERROR,
        started_at=span.start_time_unix_nano / 1e9,
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        attributes=_values(span.attributes),
        resource=resource,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: _value(one) for one in attributes}


def _value(attribute: KeyValue) -> Any:
    return getattr(attribute.value, str(attribute.value.WhichOneof("value")))


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector for as long as the block."""
    collector = Collector()
    thread = threading.Thread(target=collector.serve_forever, args=[0.02])
    thread.start()
    try:
        yield collector
    finally:
        collector.is_over.set()
        collector.shutdown()
        thread.join(5)
        collector.server_close()
