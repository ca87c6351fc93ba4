"""The interface behind which the Kafka clients differ; each has a folder that implements it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

# at a time; the clients' own choice is 4 KiB, and they let go of the GIL for each
RECEIVE_BYTES = 64 * 1024

# of one partition: number, error code, high watermark, last stable offset, first offset (None where
# the broker does not tell), aborted transactions (producer's id, first offset), the broker that is to
# be asked instead (-1 without one, KIP-392), record batches
FetchAnswer = tuple[int, int, int, int, int | None, Sequence[tuple[int, int]], int, Any]


class Requests(Protocol):
    """How a client puts what is asked of a partition's leader, and reads the answer."""

    def fetch_version(self, client: Any) -> int:
        """The newest version of the request that the brokers and this module know."""

    def fetch_request(
        self,
        version: int,
        topic: str,
        partitions: Iterable[tuple[int, int, int, int]],
        wait_ms: int,
        max_bytes: int,
        isolation_level: int,
        rack: str,
    ) -> Any:
        """
        Args:
            partitions: of each its number, leader epoch (-1 if not known), offset, and bytes at
                most.
            rack: of the client; empty where the leader itself is to answer.
        """

    def fetch_answers(self, response: Any) -> Iterator[FetchAnswer]: ...

    def ends_request(
        self, topic: str, partitions: Iterable[int], timestamp: int, isolation_level: int
    ) -> Any: ...

    def ends_answers(self, response: Any) -> Iterator[tuple[int, int, int]]:
        """Of each partition its number, error code and offset."""

    def leader(self, cluster: Any, topic: str, partition: int) -> tuple[int, int, int]:
        """The leader's node id (-1 without one), its epoch (-1 if not known) and an error code."""

    def is_connected(self, client: Any, node: int) -> bool:
        """Whether the broker can be asked; if not, begin to connect."""


class SaslExchange(Protocol):
    """What a client says to a broker until it has signed in, and what it makes of the answers."""

    def auth_bytes(self) -> bytes:
        """What is said next."""

    def receive(self, auth_bytes: bytes) -> object:
        """Take the answer to it.

        Raises:
            ValueError, KeyError: it is none, or of one who does not know the password.
        """

    def is_done(self) -> bool: ...


class Adapter(Protocol):
    """What the rest of this package needs of a client.

    Attributes:
        NAME: of the client, as pip has it.
        MADE_FOR: the client's version that this was written for.
        NO_START: what it raises where it cannot start to talk to the cluster.
        CLOSED_AT_ONCE: what it raises where a connection is closed as soon as it is open.
        NO_CONTROLLER: what its admin client raises where the cluster names no controller.
        TokenProvider: the class whose objects it takes tokens from.
    """

    NAME: str
    MADE_FOR: str
    NO_START: tuple[type[Exception], ...]
    CLOSED_AT_ONCE: tuple[type[Exception], ...]
    NO_CONTROLLER: tuple[type[Exception], ...]
    TokenProvider: type

    @property
    def requests(self) -> Requests: ...

    def sasl_exchange(self, host: str, options: Mapping[str, Any]) -> SaslExchange | None:
        """Begin to sign in at a host, by what every client is told of SASL; None where only the
        client itself can.

        In `options` the password may be a callable that gives it, for the clients too.
        """

    def common_options(self) -> dict[str, Any]:
        """What every client of the cluster is opened with."""

    def reader_options(self, request_timeout_ms: int) -> dict[str, Any]:
        """What the consumer that reads the log is opened with."""

    def committer_options(self, request_timeout_ms: int) -> dict[str, Any]:
        """What the consumer that commits positions is opened with."""

    def admin_options(self) -> dict[str, Any]: ...

    def producer_options(self, request_timeout_ms: int) -> dict[str, Any]: ...

    def create_no_topics(self, consumer: Any) -> None:
        """Have it ask for metadata so that no broker creates a topic that is missing."""

    def set_topics(self, client: Any, topics: Sequence[str]) -> None:
        """Say which topics its metadata is to have."""

    def broker_number(self, broker: Any) -> int: ...

    def new_topic(self, name: str) -> Any:
        """One partition, the broker's default replication."""

    def delete_group(self, admin: Any, group_id: str) -> None: ...

    def poll_commits(self, consumer: Any) -> None:
        """Let it send what is to be committed, and take the answers, without waiting."""
