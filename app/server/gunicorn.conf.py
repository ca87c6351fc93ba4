"""How gunicorn serves the application; its own variables and options come on top."""

import atexit
import os
import secrets
import shutil
import sys
import tempfile

# read again on SIGHUP: the workers started then shall run the code that is on disk by then
for name in [name for name in sys.modules if name.partition(".")[0] == "app"]:
    del sys.modules[name]

if "prometheus_client" not in sys.modules:
    # where the workers' metrics meet, those of a master started by SIGUSR2 elsewhere. Said before
    # the import, which looks for it, and made when it is needed: not to check the options only
    folder = os.path.join(tempfile.gettempdir(), f"kafka-state-metrics-{secrets.token_hex(8)}")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)

# what workers serve, here for them to share it and to start with it
import app.web.description  # noqa: F401
from app.server import life, variables

life.read_settings()

worker_class = life.WORKER_CLASS
threads = variables.THREADS
worker_connections = 5000
# a client whose connection finds the queue full tries again after a second; the kernel's
# net.core.somaxconn, 4096 by default, is the limit of it
backlog = worker_connections
# longer than clients and proxies keep a connection that they may use again: who closes first is
# not the one who gets a request on it
keepalive = 75
# a stop is over within 5 s, whatever the clients do
graceful_timeout = 4
control_socket_disable = True
logger_class = "app.server.logger.GunicornLogger"
accesslog = "-"
sendfile = False  # its bytes are not counted for the access log
access_log_format = '%(h)s "%(r)s" %(s)s %(B)s bytes, %(L)s s, "%(a)s"'
# by its default a client's header SCRIPT_NAME gets round the path rules of a proxy on this host
forwarder_headers = ""

on_starting = life.on_starting
pre_fork = life.pre_fork
post_fork = life.post_fork
post_worker_init = life.post_worker_init
worker_exit = life.worker_exit
child_exit = life.child_exit
