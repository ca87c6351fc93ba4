"""From a valid message to what is served. A loader is any callable that takes a message."""

from app.loaders.find import find_loader, load_json
from app.loaders.protocol import Loader
from app.message import StateMessage, Stopping
from app.message_errors import InvalidMessage, RetryableError

__all__ = [
    "InvalidMessage",
    "Loader",
    "RetryableError",
    "StateMessage",
    "Stopping",
    "find_loader",
    "load_json",
]
