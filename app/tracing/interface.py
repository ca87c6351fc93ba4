"""What the other rooms know of traces, which is also what is done where there are none: nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

# that carry a trace, by W3C Trace Context
NAMES = ("traceparent", "tracestate")

# of a Kafka record
Headers = Sequence[tuple[str, bytes | None]]
# gives the route of a request, by its method and its path; None if it has none
FindRoute = Callable[[str, str], str | None]

# in the WSGI environment: a weak reference to the served object that a request was answered from,
# where the answer does not name the message
SERVED = "kafka_state.served"


class MessageSpan:
    """The span of one message, from when it was received. For the consumer thread only.

    It is sent once `served` or `refused` was called: a message that a newer one takes the place of
    has none.
    """

    def served(self, version: str, served: object) -> None:
        """End it, before the state can be read: who reads that can link to it.

        Args:
            version: of the state.
            served: the object that is served.
        """

    def refused(self, reason: str) -> None:
        """End it: the message is not valid."""

    def put_off(self, reason: str) -> None:
        """Note that the message cannot be loaded now."""


NO_SPAN = MessageSpan()


class Tracing:
    """Makes spans, and sends them; its life is `start`, `stop`."""

    def start(self) -> None:
        """Begin to send, in the process that serves: a thread does not survive a fork."""

    def stop(self) -> None:
        """Send what has not been sent yet, if that does not take long."""

    def message(self, topic: str, partition: int, offset: int, headers: Headers) -> MessageSpan:
        """Begin the span of a message that was received now."""
        return NO_SPAN

    def requests_to(
        self, wsgi_app: WSGIApplication, find_route: FindRoute, untraced: Collection[str]
    ) -> WSGIApplication:
        """Give an application that makes a span for each request to this one.

        Args:
            untraced: the paths of requests that have none.
        """
        return wsgi_app


UNTRACED = Tracing()
