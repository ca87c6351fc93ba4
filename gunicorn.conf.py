"""How gunicorn serves the application; its own variables and options come on top."""

import os
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

worker_class = "gthread"
# an idle or half-sent connection holds a thread, so there are enough to spare
threads = 256
# a stop is over within 5 s, whatever the clients do
graceful_timeout = 4
control_socket_disable = True


def post_worker_init(worker):
    worker.wsgi.extensions["consumer"].start()
