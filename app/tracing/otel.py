"""Traces by OpenTelemetry's SDK, sent by OTLP over HTTP.

Its variables (OTEL_*) say where to, how many and in batches of what size; the SDK reads them itself.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Collection
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NoOpTracer, SpanContext, Tracer

from app.tracing.interface import FindRoute, Headers, MessageSpan, Tracing
from app.tracing.messages import Message
from app.tracing.requests import Requests

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)

NAME = "kafka-state"
# what a collector that does not answer may add to a stop, of which gunicorn's graceful_timeout is
# the end
STOP_SECONDS = 1.0
# the thread that ends the SDK looks whether it is to
WAIT_SECONDS = 60.0
# that requests can link to; one more than models can be kept
MOST_SERVED = 101


class _Served(NamedTuple):
    version: str
    # the object would be kept with it; values of JSON have no weak references
    served: Callable[[], object]
    context: SpanContext


class OpenTelemetry(Tracing):
    """Before `start`, and where the SDK cannot be started, its spans are sent nowhere.

    For any thread: `_served`, the newest first, is written by the consumer thread only and replaced
    as a whole.
    """

    def __init__(self) -> None:
        self._provider: TracerProvider | None = None
        self._tracer: Tracer = NoOpTracer()
        self._served: tuple[_Served, ...] = ()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        try:
            provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        except Exception as error:  # noqa: BLE001  # whatever is in the variables, it serves
            log.warning("No traces, for the variables OTEL_* make no sense to the SDK: %r", error)
            return
        self._provider = provider
        self._tracer = provider.get_tracer(NAME, version_of(NAME))
        # at the end of the interpreter no thread can be started any more
        self._thread = threading.Thread(target=self._end, name="traces", daemon=True)
        self._thread.start()
        log.info("Sending traces as %s", provider.resource.attributes["service.name"])

    def stop(self) -> None:
        if self._stopping.is_set() or self._thread is None:
            return
        self._stopping.set()
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            log.warning("The last traces are lost: not taken within %g s", STOP_SECONDS)

    def _end(self) -> None:
        """Wait for `stop`, and end the SDK, which has a time-out of its own for it: 30 s."""
        while not self._stopping.wait(WAIT_SECONDS):
            pass
        assert self._provider
        self._provider.shutdown()

    def message(self, topic: str, partition: int, offset: int, headers: Headers) -> MessageSpan:
        return Message(self._tracer, self._note_served, topic, partition, offset, headers)

    def requests_to(
        self, wsgi_app: WSGIApplication, find_route: FindRoute, untraced: Collection[str]
    ) -> WSGIApplication:
        return Requests(
            wsgi_app, lambda: self._tracer, find_route, untraced, self._of_version, self._of_object
        )

    def _note_served(self, version: str, served: object, context: SpanContext) -> None:
        newest = _Served(version, _reference(served), context)
        self._served = (newest, *self._served[: MOST_SERVED - 1])

    def _of_version(self, version: str) -> SpanContext | None:
        return next((one.context for one in self._served if one.version == version), None)

    def _of_object(self, served: object) -> SpanContext | None:
        if served is None:
            return None
        return next((one.context for one in self._served if one.served() is served), None)


def _reference(served: object) -> Callable[[], object]:
    try:
        return weakref.ref(served)
    except TypeError:
        return lambda: None


def _resource() -> Resource:
    """What sends the spans, in the words of the variables where they say it."""
    own = {"service.name": NAME, "service.version": version_of(NAME)}
    return Resource.create({**own, **OTELResourceDetector().detect().attributes})
