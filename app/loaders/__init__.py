"""The step from a valid message to what is served: anyone's own callable can take it."""

from app.loaders.find import find_loader, load_json
from app.loaders.protocol import Loader
from app.message import StateMessage, Stopping
from app.message_errors import InvalidMessage, TryAgain

__all__ = [
    "InvalidMessage",
    "Loader",
    "StateMessage",
    "Stopping",
    "TryAgain",
    "find_loader",
    "load_json",
]
