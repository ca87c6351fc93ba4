"""How gunicorn serves the application; its own variables and options come on top."""

import os
import signal
import sys

# read again on SIGHUP: the workers started then shall run the code that is on disk by then
for name in [name for name in sys.modules if name.partition(".")[0] == "app"]:
    del sys.modules[name]

import app
from app.settings import Settings, SettingsError

try:
    Settings.from_environ(os.environ)
except SettingsError as error:
    # here, where it ends gunicorn; in a worker it would be started again and again
    sys.exit(f"Error: {error}")

app.starts_consumer = False

worker_class = "app.worker.Worker"
# one for each request that is being answered, also to a client who does not read
threads = 1000
worker_connections = 5000
# a stop is over within 5 s, whatever the clients do
graceful_timeout = 4
control_socket_disable = True

# a new worker takes connections only when it knows the state, or that it will not soon: none of
# them is answered 503 at a reload, and it serves at once all the same
SETTLE_SECONDS = 2.0


def post_worker_init(worker):
    consumer = worker.wsgi.extensions["consumer"]
    consumer.start()
    exit_gracefully = signal.getsignal(signal.SIGTERM)

    def stop_consumer_too(signal_number, frame):
        consumer.stop(timeout=0)  # it ends while the last requests are answered
        exit_gracefully(signal_number, frame)

    signal.signal(signal.SIGTERM, stop_consumer_too)
    # less than the master's, or the worker is killed where it could have ended
    worker.cfg.set("graceful_timeout", max(worker.cfg.graceful_timeout - 1, 0))
    consumer.settled.wait(SETTLE_SECONDS)


def worker_exit(server, worker):
    if hasattr(worker, "wsgi"):  # not where loading the application failed
        consumer = worker.wsgi.extensions["consumer"]
        consumer.stop()
        if consumer.is_alive() or getattr(worker, "nr_conns", 0):
            # the interpreter would wait for the threads of a client whose broker does not answer,
            # and for those that are held by clients who do not read
            os._exit(0)
