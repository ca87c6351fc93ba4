"""Where a message or a request comes from: W3C Trace Context, as strangers may have written it."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()


def parent_of(headers: Mapping[str, str]) -> Context:
    """Give the context that `headers` name by `NAMES`; an empty one where they make no sense."""
    # with a context of its own, or a span that is current here would be the parent
    return _PROPAGATOR.extract(headers, Context())


def has_parent(context: Context) -> bool:
    return get_current_span(context).get_span_context().is_valid
