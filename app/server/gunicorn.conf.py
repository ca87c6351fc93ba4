"""How gunicorn serves the application; its own variables and options come on top."""

from app.server import bootstrap

# this file is read again on SIGHUP
bootstrap.forget_app()
bootstrap.name_metrics_folder()

# imported in the master, so that workers share its memory and start faster
import app.web.description  # noqa: F401
from app.server import hooks, logger, settings

hooks.read_settings()

worker_class = hooks.WORKER_CLASS
threads = settings.THREADS
worker_connections = 5000
# a client whose connection finds the queue full tries again after a second; the kernel's
# net.core.somaxconn, 4096 by default, is the limit of it
backlog = worker_connections
# longer than clients and proxies keep an idle connection, so that they close it first: who closes
# first misses no request
keepalive = 75
# a stop is over within 5 s, whatever the clients do
graceful_timeout = 4
control_socket_disable = True
logger_class = "app.server.logger.GunicornLogger"
accesslog = "-"
sendfile = False  # its bytes are not counted for the access log
access_log_format = logger.ACCESS_FORMAT
# by default gunicorn believes a SCRIPT_NAME header that comes through a proxy on this host: a client
# would get round the proxy's path rules with it
forwarder_headers = ""

on_starting = hooks.on_starting
pre_fork = hooks.pre_fork
post_fork = hooks.post_fork
post_worker_init = hooks.post_worker_init
worker_exit = hooks.worker_exit
child_exit = hooks.child_exit
