"""One request answered: parsed, handed to the application, sent, logged."""

from __future__ import annotations

import contextlib
import errno
import functools
import ssl
import time
from datetime import timedelta
from typing import Any

from gunicorn.http import wsgi
from gunicorn.http.body import Body, ChunkedReader
from gunicorn.http.errors import NoMoreData
from gunicorn.util import http_date
from gunicorn.workers.base import Worker

from app.server.connection import Connection

CLIENT_LEFT = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ETIMEDOUT}


def answer(worker: Worker, conn: Connection) -> bool:
    """Answer the request whose head has come; gives whether another may come on the connection."""
    request = None
    try:
        request = next(conn.parser)
        return _respond(worker, request, conn)
    except NoMoreData as error:
        worker.log.debug("Ignored premature client disconnection. %s", error)
    except StopIteration:
        worker.log.debug("Closing connection.")
    except ssl.SSLError as error:
        worker.log.debug("TLS with %s: %s", conn.client, error)
    except OSError as error:
        if error.errno not in CLIENT_LEFT:
            worker.log.exception("Socket error processing request.")
    except Exception as error:  # noqa: BLE001  # the client is told
        refuse(worker, conn, error, request)
    return False


def refuse(worker: Worker, conn: Connection, error: Exception, request: Any = None) -> None:
    """Tell the client why its request is not served."""
    worker.handle_error(request, conn, conn.client, error)
    with contextlib.suppress(OSError):
        conn.flush()


def _respond(worker: Worker, request: Any, conn: Connection) -> bool:
    worker.cfg.pre_request(worker, request)
    began = time.perf_counter()
    response, environ = wsgi.create(
        request, conn, conn.client, conn.server, worker.cfg, _Response, (worker,)
    )
    environ["wsgi.multithread"] = True
    worker.nr += 1
    if worker.nr >= worker.max_requests and worker.alive:
        worker.log.info("Autorestarting worker after current request.")
        worker.alive = False
    try:
        body = worker.wsgi(environ, response.start_response)
        try:
            for part in body:
                response.write(part)
                if response.chunked:
                    conn.flush()
            response.close()
            conn.flush()
        finally:
            if hasattr(body, "close"):
                body.close()
            seconds = time.perf_counter() - began
            worker.log.access(response, request, environ, timedelta(seconds=seconds))
    except OSError:
        raise
    except Exception as error:
        if not response.headers_sent:
            raise
        worker.log.exception("Error handling request")
        raise StopIteration from error
    finally:
        try:
            worker.cfg.post_request(worker, request, environ, response)
        except Exception:
            worker.log.exception("Exception in post_request hook")
    return not response.should_close()


class _Response(wsgi.Response):  # type: ignore[misc]
    """Closes where the connection cannot be used again."""

    def __init__(self, request: Any, conn: Connection, cfg: Any, worker: Worker) -> None:
        super().__init__(request, conn, cfg)
        self._worker = worker

    def default_headers(self) -> list[str]:
        """As gunicorn's, which writes the date anew for each answer."""
        major, minor = self.req.version
        connection = "close" if self.should_close() else "keep-alive"
        headers = [
            f"HTTP/{major}.{minor} {self.status}\r\n",
            f"Server: {self.version}\r\n",
            f"Date: {_date(int(time.time()))}\r\n",
            f"Connection: {'upgrade' if self.upgrade else connection}\r\n",
        ]
        return [*headers, "Transfer-Encoding: chunked\r\n"] if self.chunked else headers

    def should_close(self) -> bool:
        # What the client is told holds, or its next request would be lost. Only streams are closed
        # though they were to be kept: their clients would come back to a stopping worker.
        may_close = not self.headers_sent or self.chunked
        ends = not _is_read(self.req.body) or not self._worker.alive or not self.cfg.keepalive
        if may_close and ends:
            self.force_close()
        return bool(super().should_close())


@functools.lru_cache(maxsize=1)
def _date(second: int) -> str:
    return str(http_date(second))


def _is_read(body: Body) -> bool:
    """Whether nothing of it is left on the connection."""
    reader = body.reader
    if isinstance(reader, ChunkedReader):
        return not (reader.parser or body.failed)
    return not reader.length
