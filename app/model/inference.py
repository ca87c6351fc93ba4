"""One inference: from the body of the request to that of the answer."""

from __future__ import annotations

import io
import re
import socket
import time
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from werkzeug.exceptions import NotFound
from werkzeug.wsgi import ClosingIterator, get_content_length, get_input_stream

from app.model.budget import Holding
from app.model.datatypes import Array, BadRequest, size_of
from app.model.model import Model
from app.model.tensors import JSON_SIZE_HEADER, InferRequest, read_request, write_response
from app.tracing import SERVED
from app.web.auth import HEADERS, NOT_STORED, has_token
from app.web.metrics import BEGAN

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from app.model.service import ModelService
    from app.service import Service

# a run that takes longer than it costs to have another thread answer meanwhile
SLOW_SECONDS = 0.001
# and one that takes longer for each other that computes at the same time
LONG_SECONDS = 0.005
# of a body, received at once
PIECE_BYTES = 2**18

PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
ROUTE = "/v2/models/<name>/infer"
ROUTE_OF_VERSION = "/v2/models/<name>/versions/<version>/infer"
# in the WSGI environment: the header, and why there is no answer
JSON_SIZE = "HTTP_" + JSON_SIZE_HEADER.upper().replace("-", "_")
FAILED = "kafka_state.failed"


class Answer(NamedTuple):
    """
    Attributes:
        close: to be called when it is sent.
    """

    body: bytes
    headers: list[tuple[str, str]]
    close: Callable[[], None]


class Inferences:
    """A WSGI application around Flask's, which answers inferences that go well; how one that fails
    is answered, Flask says. For a small model Flask costs more than all the rest."""

    def __init__(self, wsgi_app: WSGIApplication, service: Service) -> None:
        self._wsgi_app = wsgi_app
        self._service = service

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        began = time.perf_counter()
        asked = PATH.fullmatch(environ["PATH_INFO"])
        if (
            not asked
            or environ["REQUEST_METHOD"] != "POST"
            or not has_token(environ, self._service.settings.api_tokens())
        ):
            return self._wsgi_app(environ, start_response)
        name, version = asked.groups()
        try:
            answer = infer(self._service, environ, name, version)
        except Exception as error:  # noqa: BLE001  # it is raised again there
            environ[FAILED], environ[BEGAN] = error, began
            return self._wsgi_app(environ, start_response)
        route = ROUTE if version is None else ROUTE_OF_VERSION
        length = ("Content-Length", str(len(answer.body)))
        try:
            self._service.metrics.count(route, "POST", 200, time.perf_counter() - began)
            start_response("200 OK", [*answer.headers, length, *HEADERS.items(), NOT_STORED])
        except BaseException:
            answer.close()
            raise
        return ClosingIterator((answer.body,), answer.close)


def served_model(service: Service) -> Model:
    """
    Raises:
        StateUnknown: there is none yet.
    """
    assert service.model
    return service.model.require_model(service.state.read())


def kept_models(service: Service, served: Model) -> list[Model]:
    """Those of its name that were served before and can be asked, the last served first."""
    assert service.model
    return service.model.loader.versions.beside(served)


def asked_model(service: Service, name: str, version: str | None) -> Model:
    """
    Raises:
        StateUnknown: there is none yet.
        NotFound: it is neither served nor kept.
    """
    served = served_model(service)
    if name == served.name and version in (None, served.version):
        return served
    kept = kept_models(service, served)
    for model in kept:
        if (name, version) == (model.name, model.version):
            return model
    wanted = name if version is None else f"{name} {version}"
    told = f"the model is {wanted}; served is {served.name} {served.version}"
    if kept:
        told += f", and kept {', '.join(model.version for model in kept)}"
    raise NotFound(told)


def infer(service: Service, environ: WSGIEnvironment, name: str, version: str | None) -> Answer:
    """Give what the model computes from the inputs, and the version that did.

    Raises:
        StateUnknown: there is no model yet.
        NotFound: it is neither served nor kept.
        BadRequest: the request does not fit it.
        LimitExceeded: other requests hold the threads, or the memory, that this one needs.
        MemoryError: there is not enough memory to compute it.
        GatewayTimeout: that takes too long.
        ClientLeft: nobody waits for it.
    """
    model = asked_model(service, name, version)
    environ[SERVED] = weakref.ref(model)  # which is freed although a client reads slowly
    assert service.model
    holding = Holding(service.model.budget)
    try:
        body, headers = _answer(service.model, model, environ, holding)
    except BaseException:
        holding.close()
        raise
    return Answer(body, headers, holding.close)


def _answer(
    service: ModelService, model: Model, environ: WSGIEnvironment, holding: Holding
) -> tuple[bytes, list[tuple[str, str]]]:
    body = _receive(service, environ, holding)
    asked = read_request(body, _json_size(environ), model.inputs, model.outputs, holding.take)
    if not holding.is_small:  # what was needed to parse it is free again
        holding.keep(len(body) + sum(map(size_of, asked.inputs.values())))
    batch_size = model.batch_size(asked.inputs)
    if batch_size is not None:
        service.metrics.batch_size.observe(batch_size)
    computed = _compute(service, model, asked, environ.get("gunicorn.socket"))
    head = {"model_name": model.name, "model_version": model.version}
    if asked.id is not None:
        head["id"] = asked.id
    holding.take(sum(map(size_of, computed.values())))
    body, json_size = write_response(head, computed, asked.outputs)
    holding.take(len(body) + (json_size or len(body)))  # its JSON was put together of pieces
    holding.keep(len(body))
    if json_size is None:
        return body, [("Content-Type", "application/json")]
    return body, [
        ("Content-Type", "application/octet-stream"),
        (JSON_SIZE_HEADER, str(json_size)),
    ]


def _compute(
    service: ModelService, model: Model, asked: InferRequest, connection: socket.socket | None
) -> dict[str, Array]:
    if connection and model.run_seconds > SLOW_SECONDS:
        service.before_wait(connection)
    with service.runs.bounded(connection, model.run_seconds > LONG_SECONDS) as run:
        began = time.perf_counter()
        try:
            return model.infer(asked.inputs, asked.outputs, run.options)
        except ValueError as error:
            told = f"{model.name} {model.version} cannot compute this: {error}"
            raise BadRequest(told) from error
        finally:
            service.metrics.inference.observe(time.perf_counter() - began)


def _receive(service: ModelService, environ: WSGIEnvironment, holding: Holding) -> bytes:
    coding = environ.get("HTTP_CONTENT_ENCODING", "identity")
    if coding.lower() != "identity":
        raise BadRequest(f"Content-Encoding is {coding!r}; accepted is a body as it is")
    most = service.settings.max_request_bytes
    length = get_content_length(environ)
    if length is not None and length > most:
        raise _too_large(most)
    received = io.BytesIO()
    try:
        stream = get_input_stream(environ)
        with service.body_limit.slot():  # for as long as the client takes to send it
            while True:
                size = PIECE_BYTES if length is None else min(length - received.tell(), PIECE_BYTES)
                holding.take(size)
                piece = stream.read(size)
                received.write(piece)
                if received.tell() > most:
                    raise _too_large(most)
                if len(piece) < size or received.tell() == length:
                    break
    except service.body_errors as error:
        raise BadRequest(f"the body is no HTTP: {error}") from error
    body = received.getvalue()
    if length not in (None, len(body)):
        raise BadRequest(f"the body ends after {len(body)} of {length} bytes")
    return body


def _too_large(most: int) -> BadRequest:
    return BadRequest(f"the body is larger than MODEL_MAX_REQUEST_BYTES, {most}")


def _json_size(environ: WSGIEnvironment) -> int | None:
    given = environ.get(JSON_SIZE)
    if given is None:
        return None
    if not given.isascii() or not given.isdigit() or len(given) > 18:
        raise BadRequest(f"{JSON_SIZE_HEADER} is {given[:60]!r}; accepted is a number of bytes")
    return int(given)
