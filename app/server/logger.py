"""gunicorn's log, in the format of the program's own, and without the probes' requests."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from gunicorn.glogging import Logger

from app import logs
from app.settings import Settings
from app.web.views import PROBES


class GunicornLogger(Logger):  # type: ignore[misc]
    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        settings = Settings.from_environ(os.environ)
        self._as_fields = settings.log_format == "json"
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            handler.setFormatter(logs.formatter(settings))

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: timedelta) -> None:
        if environ.get("PATH_INFO") in PROBES or not self.access_log_enabled:
            return
        if not self._as_fields:
            super().access(resp, req, environ, request_time)
            return
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
