"""How gunicorn serves the application; its own variables and options come on top."""

import os
import shutil
import signal
import sys
import tempfile
import time

# read again on SIGHUP: the workers started then shall run the code that is on disk by then
for name in [name for name in sys.modules if name.partition(".")[0] == "app"]:
    del sys.modules[name]

if "prometheus_client" not in sys.modules:
    # the workers' metrics meet there, those of a master started by SIGUSR2 elsewhere; before the
    # import, which looks for it
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="kafka-state-metrics-")

from prometheus_client import multiprocess

import app
from app.environment import SettingsError
from app.settings import WAITING_ACCEPTED, Settings


def refuse(error):
    # in the master, where it ends gunicorn; a worker would be started again and again
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    sys.exit(f"Error: {error}")


try:
    settings = Settings.from_environ(os.environ)
except SettingsError as error:
    refuse(error)

app.starts_consumer = False

worker_class = "app.worker.Worker"
# one for each request that is being answered, also to a client who does not read
threads = 1000
worker_connections = 5000
# a client whose connection finds the queue full tries again after a second; the kernel's
# net.core.somaxconn, 4096 by default, is the limit of it
backlog = worker_connections
# a stop is over within 5 s, whatever the clients do
graceful_timeout = 4
control_socket_disable = True
logger_class = "app.gunicorn_logger.GunicornLogger"
accesslog = "-"
sendfile = False  # its bytes are not counted for the access log
access_log_format = '%(h)s "%(r)s" %(s)s %(B)s bytes, %(L)s s, "%(a)s"'

# a new worker takes connections only when it knows the state, or that it will not soon: none of
# them is answered 503 at a reload, and it serves at once all the same
SETTLE_SECONDS = 2.0


def on_starting(server):
    if settings.max_waiting is not None and settings.max_waiting >= server.cfg.threads:
        refuse(
            f"STATE_MAX_WAITING is '{settings.max_waiting}': {WAITING_ACCEPTED}, "
            f"{server.cfg.threads}"
        )


def pre_fork(server, worker):
    # the application has gauges in the master too, with --preload, which nobody sets there
    multiprocess.mark_process_dead(os.getpid())


def child_exit(server, worker):
    multiprocess.mark_process_dead(worker.pid)


def on_exit(server):
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


def post_worker_init(worker):
    state = worker.wsgi.extensions["state"]
    waiting_room = worker.wsgi.extensions["waiting_room"]
    if settings.max_waiting is None:
        waiting_room.seats = worker.cfg.threads // 2
    if hasattr(worker, "give_time"):  # not where another worker class was chosen
        waiting_room.give_time = worker.give_time
    if settings.model:
        worker.wsgi.extensions["bodies"].seats = max(worker.cfg.threads // 2, 1)
        worker.wsgi.extensions["loader"].requests_at_once = worker.cfg.threads * worker.cfg.workers
    consumer = worker.wsgi.extensions["consumer"]
    consumer.start()
    settle_until = time.monotonic() + SETTLE_SECONDS
    while worker.alive and time.monotonic() < settle_until and not consumer.settled.wait(0.1):
        pass
    exit_gracefully = signal.getsignal(signal.SIGTERM)

    def stop_consumer_too(signal_number, frame):
        # not interrupted by itself while it holds the locks; nor does what it interrupts hold one
        signal.signal(signal.SIGTERM, exit_gracefully)
        consumer.stop(timeout=0)  # it ends while the last requests are answered
        state.close()  # and those that wait are among the last
        exit_gracefully(signal_number, frame)

    signal.signal(signal.SIGTERM, stop_consumer_too)
    # less than the master's, or the worker is killed where it could have ended
    worker.cfg.set("graceful_timeout", max(worker.cfg.graceful_timeout - 1, 0))


def worker_exit(server, worker):
    if hasattr(worker, "wsgi"):  # not where loading the application failed
        consumer = worker.wsgi.extensions["consumer"]
        consumer.stop()
        if consumer.is_alive() or getattr(worker, "nr_conns", 0):
            # the interpreter would wait for the threads of a client whose broker does not answer,
            # and for those that are held by clients who do not read
            os._exit(0)
