"""The errors of this package itself, in an operator's words."""

from __future__ import annotations

from kafka.errors import KafkaError


class TopicLogError(KafkaError):  # type: ignore[misc]  # the client has no types
    """An error of this package itself, in an operator's words."""

    __str__ = Exception.__str__


class NotAllowed(TopicLogError):
    """The cluster's ACLs forbid what is needed; the text says what that is."""


class Unreachable(TopicLogError):
    """No broker can be talked to; the text says for each of them why."""


class Refused(Unreachable):
    """The cluster does not accept who this client says it is. To ask again soon is of no use, and
    may lock an account."""
