"""What becomes of connections whose sessions the broker ends, and what the docs say of it."""

from __future__ import annotations

import psutil

from tests.support.clients import IS_KAFKA_PYTHON_3
from tests.support.docs import table_rows


def connections_to(server: str) -> set[int]:
    """The ports of this process's connections."""
    port = int(server.partition(":")[2])
    return {
        connection.laddr.port
        for connection in psutil.Process().net_connections("tcp")
        if connection.raddr and connection.raddr.port == port
    }


def connects_again(mechanism: str) -> bool:
    """Whether the docs say so of this client, for which it may sign in again too."""
    row = next(
        row for row in table_rows("security", "Which mechanisms") if f"`{mechanism}`" in row[0]
    )
    of_client = row[3 if IS_KAFKA_PYTHON_3 else 4]
    assert of_client in ("signs in again", "connects again")
    return of_client == "connects again"
