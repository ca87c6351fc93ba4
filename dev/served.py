"""`python -m dev.served` is what `make run-producer` runs: producer.py, and where a service follows
the topic on this machine, its `--wait`."""

from __future__ import annotations

import os
import sys

from app.commands.client import NoService, ServiceClient
from dev.ports import of_service


def main() -> None:
    """Become producer.py, with the options that are given."""
    service = ServiceClient(f"localhost:{of_service(os.environ)}")
    try:
        is_served = service.status()["topic"] == os.environ["KAFKA_TOPIC"]
    except NoService:
        is_served = False
    waiting = ["--wait", service.url] if is_served else []
    os.execv(sys.executable, [sys.executable, "producer.py", *sys.argv[1:], *waiting])


if __name__ == "__main__":
    main()
