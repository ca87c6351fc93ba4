"""The valid messages of one partition that may be the state."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from app.message import StateMessage
from app.message_errors import InvalidMessage, RetryableError
from app.state import Snapshot


@dataclass
class Candidate:
    """A valid message. It is the state if it loads and no newer one does.

    Attributes:
        unread: the offsets before it that were not read.
        older: the candidate before those offsets; None if there is none, or none is needed.
        lowest_refused: the lowest timestamp of the refused messages between it and `older`, which
            are not kept.
        last_seen: how many messages had been appended when it was last known to be in the log.
    """

    message: StateMessage
    unread: range
    last_seen: int = 0
    older: Candidate | None = None
    lowest_refused: float = math.inf
    is_refused: bool = False
    has_loaded: bool = False
    _loaded: Snapshot | None = field(default=None, repr=False)

    def try_to_load(self, load: Callable[[StateMessage], Snapshot]) -> None:
        if self.is_refused or self._loaded:
            return
        try:
            self._loaded = load(self.message)
        except InvalidMessage:
            self.is_refused = True
        except RetryableError:
            pass
        else:
            # nothing before it is ever needed
            self.has_loaded, self.older, self.lowest_refused = True, None, math.inf
            self.unread = _nothing_before(self.message)

    def take_loaded(self) -> Snapshot | None:
        """Give what was loaded, and do not keep it: it may be a large model."""
        loaded, self._loaded = self._loaded, None
        return loaded

    def note_read_back(self, found: Candidate | None, refused: float) -> None:
        """Note that `unread` was read, from its end back to `found`.

        Args:
            found: the next candidate; None if there is none.
            refused: the lowest timestamp of the refused messages after `found`.
        """
        if found is None:
            self.lowest_refused = min(self.lowest_refused, refused)
        else:
            if not found.has_loaded:
                found.unread = range(self.unread.start, found.message.offset)
                found.older, found.lowest_refused = self.older, self.lowest_refused
            self.older, self.lowest_refused = found, refused
        self.unread = _nothing_before(self.message)


@dataclass
class Candidates:
    """What is known of one partition's end, as a chain from the newest candidate to older ones.

    Attributes:
        newest: None if none is known.
    """

    newest: Candidate | None = None

    def append(self, message: StateMessage, since: int, appended: int) -> None:
        """Make `message` the newest.

        The one before it is kept only if it has loaded; else it is read again when it is needed.
        So the chain does not grow.
        """
        last = self.newest
        self.newest = newest = Candidate(message, range(since, message.offset), appended)
        if last is None or last.has_loaded:
            newest.older = last
        elif last.is_refused and not last.unread:
            newest.older = last.older
            newest.lowest_refused = min(last.lowest_refused, last.message.timestamp)
        else:
            newest.unread = range(last.unread.start, message.offset)
            newest.older, newest.lowest_refused = last.older, last.lowest_refused

    def trim_before(self, start: int, appended: int) -> None:
        """Forget the candidates before `start` that were last seen before the last append."""
        newer, candidate = None, self.newest
        while candidate and candidate.message.offset >= start:
            candidate.last_seen = appended
            candidate.unread = range(max(candidate.unread.start, start), candidate.message.offset)
            newer, candidate = candidate, candidate.older
        if candidate is None or candidate.last_seen == appended:
            return
        if newer:
            newer.older = None
        else:
            self.newest = None


def _nothing_before(message: StateMessage) -> range:
    return range(message.offset, message.offset)
