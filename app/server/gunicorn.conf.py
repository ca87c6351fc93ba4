"""How gunicorn serves the application; its own variables and options come on top."""

from app.server import reloading

# this file is read again on SIGHUP
reloading.forget_app()
reloading.name_metrics_folder()

# what workers serve, here for them to share it and to start with it
import app.web.description  # noqa: F401
from app.server import life, settings

life.read_settings()

worker_class = life.WORKER_CLASS
threads = settings.THREADS
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
