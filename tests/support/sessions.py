"""What becomes of connections whose sessions the broker ends, and what the README says of it."""

from __future__ import annotations

import re

import psutil

from tests.support.clients import IS_KAFKA_PYTHON_3
from tests.support.processes import ROOT


def connections_to(server: str) -> set[int]:
    """The ports of this process's connections."""
    port = int(server.partition(":")[2])
    return {
        connection.laddr.port
        for connection in psutil.Process().net_connections("tcp")
        if connection.raddr and connection.raddr.port == port
    }


def connects_again(mechanism: str) -> bool:
    """Whether the README says so of this client, for which it may sign in again too."""
    readme = (ROOT / "README.md").read_text()
    row = re.search(rf"^\| .*`{mechanism}`.* \| (.*) \| (.*) \|$", readme, re.MULTILINE)
    assert row
    of_client = row[1 if IS_KAFKA_PYTHON_3 else 2]
    assert of_client in ("signs in again", "connects again")
    return of_client == "connects again"
