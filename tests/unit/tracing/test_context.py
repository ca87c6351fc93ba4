"""Headers of strangers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.tracing.otel import OpenTelemetry

TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NAMES = st.sampled_from(["traceparent", "tracestate", "other"])
VALUES = st.none() | st.binary() | st.just(TRACEPARENT) | st.from_regex(rb"[0-9a-f]{2}-[0-9a-f-]*")


@given(st.lists(st.tuples(NAMES | st.text(), VALUES)))
def test_whatever_the_headers_are_the_span_of_a_message_ends(headers):
    tracing = OpenTelemetry()
    span = tracing.message("t", 0, 5, headers)
    span.put_off("away")
    span.refused("json")
    span.served("0-5-1", {})


@given(st.text(st.characters(max_codepoint=255)), st.text(st.characters(max_codepoint=255)))
def test_whatever_the_headers_are_a_request_is_answered(parent, state):
    def wsgi_app(environ, start_response):
        start_response("200 OK", [])
        return [b"answer"]

    environ = {
        "PATH_INFO": "/state",
        "REQUEST_METHOD": "GET",
        "wsgi.url_scheme": "http",
        "HTTP_TRACEPARENT": parent,
        "HTTP_TRACESTATE": state,
    }
    app = OpenTelemetry().requests_to(wsgi_app, lambda method, path: None, ())
    assert app(environ, lambda *answer: None) == [b"answer"]
