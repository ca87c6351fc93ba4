"""Ports of this machine: the service's, and those that nothing listens on."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Mapping

# pytest-xdist's workers have some each
PART = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PARTS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
# below those that systems hand out by themselves, so that nobody is given the one of a broker that
# is down for a moment
PORTS = range(20000 + PART, 32768, PARTS)


def of_service(environ: Mapping[str, str]) -> str:
    """Where gunicorn listens, by its own variable, which may make no sense."""
    return environ.get("PORT") or "8000"


def is_free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


# each is given once, for a broker that is down keeps its own
free_ports = (port for port in random.sample(PORTS, len(PORTS)) if is_free(port))
