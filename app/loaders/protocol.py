"""What a loader is, and what becomes of what it gives or raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from app.message import StateMessage, Stopping
from app.message_errors import InvalidMessage, NotServed, RetryableError
from app.state import Snapshot
from app.strict_json import canonical_json


class Loader(Protocol):
    """Makes of a message what is served.

    It may have a method `is_cached(message)`: whether the message is loaded without delay. A start
    serves the newest such message until a newer one is loaded.
    """

    def __call__(self, message: StateMessage) -> Any:
        """Give the object to serve: a JSON value, or an object whose attribute `representation` is
        the JSON value that `/state` answers.

        Raises:
            InvalidMessage: the message never becomes a state, and is skipped.
            RetryableError: not now; it is asked again later, unless a newer message has come.
        """


def load(loader: Loader, message: StateMessage) -> Snapshot:
    """Give what is served from `message` on.

    Raises:
        InvalidMessage: the loader raised it; or, with reason `loader` and the cause, it raised
            something else, or gave what cannot be written as JSON.
        RetryableError: the loader raised it; or there is no memory left (reason `memory`), or it
            raised an OSError (reason `os`).
        Stopping: the checkpoint raised it.
    """
    with _translating_errors():
        served = loader(message)
        representation = canonical_json(getattr(served, "representation", served))
    return Snapshot(
        representation,
        message.timestamp,
        message.partition,
        message.offset,
        message.topic_id,
        served,
        message.span,
    )


def is_cached(loader: Loader, message: StateMessage) -> bool:
    """Whether `message` is loaded without delay.

    Raises:
        InvalidMessage, RetryableError, Stopping: as `load` does.
    """
    with _translating_errors():
        return bool(loader.is_cached(message)) if hasattr(loader, "is_cached") else True


@contextmanager
def _translating_errors() -> Iterator[None]:
    try:
        yield
    except (NotServed, Stopping):
        raise
    except MemoryError as error:
        raise RetryableError("memory", "there is not enough of it") from error
    except OSError as error:  # of a disk or a network, and not of the message
        raise RetryableError("os", f"{type(error).__name__}: {error}") from error
    except BaseException as error:  # sys.exit() too: the thread goes on
        raise InvalidMessage("loader", f"{type(error).__name__}: {error}") from error
