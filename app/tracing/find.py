"""Whether there are traces, by the variables that every OpenTelemetry SDK reads.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and
https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

from collections.abc import Mapping

from app.tracing.interface import UNTRACED, Tracing

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"


def find_tracing(environ: Mapping[str, str]) -> Tracing:
    """Give what makes the traces that the environment asks for, if it can be done."""
    if not _are_wanted(environ) or why_untraced(environ):
        return UNTRACED
    from app.tracing.otel import OpenTelemetry

    return OpenTelemetry()


def why_untraced(environ: Mapping[str, str]) -> str | None:
    """Say why there are no traces although the environment asks for them; None if there are, or it
    does not.

    Platforms set these variables for all that they run, so that nothing ends because of them.
    """
    if not _are_wanted(environ):
        return None
    exporter = environ.get("OTEL_TRACES_EXPORTER")
    if exporter and exporter != "otlp":
        return f"No traces: OTEL_TRACES_EXPORTER is {exporter!r}: accepted are 'otlp' and 'none'"
    protocol = next((name for name in PROTOCOLS if environ.get(name)), None)
    if protocol and environ[protocol] != PROTOCOL:
        return f"No traces: {protocol} is {environ[protocol]!r}: accepted is {PROTOCOL!r}"
    try:
        import app.tracing.otel  # noqa: F401
    except ImportError as error:
        return (
            "No traces, which the variables OTEL_* ask for: they need the extra otel "
            f"(pip install '.[otel]'): {error}"
        )
    return None


def _are_wanted(environ: Mapping[str, str]) -> bool:
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER")
    if exporter:
        return exporter != "none"
    return any(environ.get(name) for name in ENDPOINTS)
