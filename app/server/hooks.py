"""The life of gunicorn and its workers: start, drain, stop.

These are gunicorn's hooks, by its own names; gunicorn.conf.py hands them over.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.sync import SyncWorker

from app.server import bootstrap
from app.server import settings as server_settings
from app.server.shares import Shares, shared_memory
from app.server.worker import Worker, served_by
from app.service import service_of
from app.serving import Server, do_nothing
from app.settings import Settings, SettingsError, unknown_names
from app.tracing import why_untraced
from app.web import metrics_files

# a new worker accepts connections once it knows the state, so that no request is answered 503 at a
# reload; but not later than this, broker or not
INITIAL_LOAD_SECONDS = 2.0
POLL_SECONDS = 0.01
# more than a start waits for the state, and a stream between two extensions of its deadline
LEAST_TIMEOUT_SECONDS = 3

WORKER_CLASS = f"{Worker.__module__}.{Worker.__name__}"


def refuse(error: object) -> NoReturn:
    """End the master; a worker would be started again and again."""
    sys.exit(f"Error: {error}")


def read_settings() -> Settings:
    """Read the settings; one that makes no sense ends the master."""
    try:
        server_settings.check(os.environ)
        settings = Settings.from_environ(os.environ)
        if settings.model:
            # its packages come with the extra `onnx` only
            from app.model.uri import require_prefixes

            require_prefixes(settings.model.uri_prefixes)
    except SettingsError as error:
        refuse(error)
    return settings


def on_starting(server: Any) -> None:
    cfg = server.cfg
    try:
        server_settings.check_waiting(read_settings().max_waiting, cfg.threads)
    except SettingsError as error:
        refuse(error)
    if 0 < cfg.timeout < LEAST_TIMEOUT_SECONDS:
        refuse(
            f"--timeout is {cfg.timeout}: accepted are 0, and {LEAST_TIMEOUT_SECONDS} or more "
            "(seconds), for a worker may wait for the state for two"
        )
    worker_class = cfg.worker_class
    if not issubclass(worker_class, (Worker, ThreadWorker, SyncWorker)):
        refuse(
            f"the worker class is {cfg.worker_class_str}: accepted are {WORKER_CLASS} (the "
            "default), gthread and sync, for the service is made of threads"
        )
    if issubclass(worker_class, Worker):
        if unknown := _protocol_unknown_to_worker(cfg):
            refuse(f"{unknown} is left to gunicorn's own workers: choose one, with -k gthread")
    else:
        server.log.warning(
            "The worker class is %s: with it a few clients that are slow, or wait, hold up all "
            "others, and who waits is cut off at a stop. Leave out -k (--worker-class) for %s",
            cfg.worker_class_str,
            WORKER_CLASS,
        )
    for line in unknown_names(os.environ):
        server.log.warning(line)
    if untraced := why_untraced(os.environ):
        server.log.warning(untraced)
    folder = Path(os.environ[metrics_files.FOLDER])
    metrics_files.make(folder)
    if os.geteuid() == 0:
        os.chown(folder, cfg.uid, cfg.gid)  # or workers of another user could not write there


def _protocol_unknown_to_worker(cfg: Any) -> str | None:
    if cfg.protocol != "http":
        return f"--protocol {cfg.protocol}"
    over_tls = cfg.is_ssl and "h2" in cfg.http_protocols
    return "HTTP/2" if over_tls or cfg.http2_cleartext != "off" else None


def pre_fork(server: Any, worker: Any) -> None:
    if isinstance(worker, Worker):
        if not hasattr(server, "shared_memory"):
            # kept there, for a reload imports this package anew
            server.shared_memory = shared_memory()
        worker.share = Shares(server.shared_memory).of(worker.age)
        worker.share.begin()
    # the application has gauges in the master too, with --preload, which nobody sets there
    _fold_metrics(server)


def post_fork(server: Any, worker: Any) -> None:
    atexit.unregister(shutil.rmtree)  # of the metrics' folder, which is the master's to remove
    if worker.cfg.reload and not worker.cfg.preload_app:
        # the master has imported the package for its hooks, and a worker gets that with the fork
        bootstrap.forget_app(except_for="app.server")


def post_worker_init(worker: Any) -> None:
    # what is there by now stays: without it each full collection looks through all of it, and
    # holds every request up for 10 to 30 ms
    gc.collect()
    gc.freeze()
    service = service_of(worker.wsgi)
    service.start(
        Server(
            threads=worker.cfg.threads,
            processes=worker.cfg.workers,
            before_wait=getattr(worker, "before_wait", do_nothing),
            body_errors=(ParseException,),
        )
    )
    is_done = service.consumer.initial_load_done
    deadline = time.monotonic() + INITIAL_LOAD_SECONDS
    # polled: wait() would hold the lock that set() needs in a signal's handler
    while worker.alive and time.monotonic() < deadline and not is_done.is_set():
        time.sleep(POLL_SECONDS)
    # a second less than the master's, which would kill a worker that is about to end
    worker.cfg.set("graceful_timeout", max(worker.cfg.graceful_timeout - 1, 0))


def worker_exit(server: Any, worker: Any) -> None:
    service = served_by(worker)
    if service is None:
        return
    service.stop()
    if service.consumer.is_alive() or getattr(worker, "nr_conns", 0) > 0:
        # the interpreter would wait for the threads of a client whose broker does not answer,
        # and for those that are held by clients who do not read
        os._exit(0)


def child_exit(server: Any, worker: Any) -> None:
    if share := getattr(worker, "share", None):
        share.end()  # it may have been killed
    _fold_metrics(server)


def _fold_metrics(server: Any) -> None:
    try:
        metrics_files.fold(Path(os.environ[metrics_files.FOLDER]), server.WORKERS)
    except OSError as error:  # the next time folds them too
        server.log.warning("The metrics of a worker that has ended are not folded yet: %s", error)
