"""Traces: one span for a message's way to being served, and one for each request.

The only package that knows OpenTelemetry, whose packages come with the extra `otel`; `otel` and what
it imports are imported only where the environment asks for traces.
"""

from app.tracing.find import find_tracing, why_untraced
from app.tracing.interface import NAMES, NO_SPAN, SERVED, UNTRACED, Headers, MessageSpan, Tracing

__all__ = [
    "NAMES",
    "NO_SPAN",
    "SERVED",
    "UNTRACED",
    "Headers",
    "MessageSpan",
    "Tracing",
    "find_tracing",
    "why_untraced",
]
