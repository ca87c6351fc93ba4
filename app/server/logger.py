"""gunicorn's log, in the format of the program's own, and without the probes' requests."""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections import deque
from datetime import timedelta
from typing import Any

from gunicorn.glogging import Logger

from app import logs
from app.settings import Settings
from app.web.views import PROBES

# at once, which a pipe keeps together (PIPE_BUF): other workers write into it too
MOST_WRITTEN = 4096
MOST_HELD = 10_000
ACCESS_FORMAT = '%(h)s "%(r)s" %(s)s %(B)s bytes, %(L)s s, "%(a)s"'


class GunicornLogger(Logger):  # type: ignore[misc]
    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self._settings = settings = Settings.from_environ(os.environ)
        self._as_fields = settings.log_format == "json"
        self._held: deque[str] | None = None
        self._writing = threading.Lock()
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            handler.setFormatter(logs.formatter(settings))

    def hold_access_lines(self) -> None:
        """Write lines of requests together, at `write_held`, for a write of each costs as much as
        all else about it. To be called by a worker that calls that whenever it has nothing else
        to do at once."""
        self._held = deque()

    @property
    def holds_lines(self) -> bool:
        return bool(self._held)

    def write_held(self) -> bool:
        """Write the lines that are held; for any thread. False if another one is at it, which a
        log that is not read may hold up: then they wait, if they are not too many."""
        if not self._held or not self._writing.acquire(blocking=len(self._held) > MOST_HELD):
            return False
        try:
            text = ""
            while self._held:
                line = self._held.popleft()
                if len(text) + len(line) > MOST_WRITTEN:
                    self._write(text)
                    text = ""
                text += line
            self._write(text)
        finally:
            self._writing.release()
        return True

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: timedelta) -> None:
        if environ.get("PATH_INFO") in PROBES or not self.access_log_enabled:
            return
        if self._as_fields:
            self._log_fields(resp, environ, request_time)
        elif handler := self._only_handler():
            self._write_line(handler, resp, environ, request_time)
        else:
            super().access(resp, req, environ, request_time)

    def _log_fields(self, resp: Any, environ: dict[str, Any], request_time: timedelta) -> None:
        self.access_log.info(
            "request",
            extra={
                "client": environ.get("REMOTE_ADDR"),
                "method": environ.get("REQUEST_METHOD"),
                "path": environ.get("PATH_INFO"),
                "query": environ.get("QUERY_STRING"),
                "status": int(resp.status.split()[0]),
                "bytes": resp.sent,
                "seconds": request_time.total_seconds(),
                "user_agent": environ.get("HTTP_USER_AGENT"),
            },
        )

    def _only_handler(self) -> logging.StreamHandler[Any] | None:
        """The handler that writes the lines as they are here; None where they go elsewhere too, or
        are wanted otherwise."""
        if self.cfg.access_log_format != ACCESS_FORMAT or len(self.access_log.handlers) != 1:
            return None
        (handler,) = self.access_log.handlers
        return handler if isinstance(handler, logging.StreamHandler) else None

    def _write_line(
        self,
        handler: logging.StreamHandler[Any],
        resp: Any,
        environ: dict[str, Any],
        request_time: timedelta,
    ) -> None:
        """Write what `super().access` would, without a record of some thirty fields for each."""
        request = f"{environ['REQUEST_METHOD']} {environ['RAW_URI']} {environ['SERVER_PROTOCOL']}"
        agent = environ.get("HTTP_USER_AGENT", "-")
        line = (
            f'{environ.get("REMOTE_ADDR", "-")} "{_quoted(request)}" {resp.status[:3]} {resp.sent} '
            f'bytes, {request_time.total_seconds():.6f} s, "{_quoted(agent)}"'
        )
        line = _line(int(time.time()), os.getpid()) + line
        line = logs.visible(self._settings.redact(line)) + handler.terminator
        if self._held is None:
            self._write(line)
        else:
            self._held.append(line)

    def _write(self, text: str) -> None:
        handler = self._only_handler()
        if not text or not handler:
            return
        handler.acquire()
        try:
            handler.stream.write(text)
            handler.flush()
        except Exception:  # noqa: BLE001  # as gunicorn does
            self.exception("The access log cannot be written")
        finally:
            handler.release()


def _quoted(text: str) -> str:
    return text.replace('"', '\\"')


@functools.lru_cache(maxsize=1)
def _line(second: int, pid: int) -> str:
    """How every line of this second begins."""
    at = time.strftime(logs.TEXT_DATE, time.localtime(second))
    return logs.TEXT % {"asctime": at, "process": pid, "levelname": "INFO", "message": ""}
