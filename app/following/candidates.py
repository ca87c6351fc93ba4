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
    """A valid message that is the state if it loads, and none that is newer does.

    Attributes:
        unread: the offsets before it that were not read.
        older: the candidate before those; None if there is none, or none is needed.
        refused_before: the lowest timestamp of the messages between it and `older` that were
            refused, and are not kept.
        seen_after: how many messages had been appended when it was last known to be in the log.
    """

    message: StateMessage
    unread: range
    seen_after: int = 0
    older: Candidate | None = None
    refused_before: float = math.inf
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
            self.has_loaded, self.older, self.refused_before = True, None, math.inf
            self.unread = _nothing_before(self.message)

    def take_loaded(self) -> Snapshot | None:
        """Give what was loaded, and do not keep it: it may be a large model."""
        loaded, self._loaded = self._loaded, None
        return loaded

    def note_read_back(self, found: Candidate | None, refused: float) -> None:
        """Note that all of `unread` was read from its end to the candidate that was `found`.

        Args:
            refused: the lowest timestamp of the messages after that one that were refused.
        """
        if found is None:
            self.refused_before = min(self.refused_before, refused)
        else:
            if not found.has_loaded:
                found.unread = range(self.unread.start, found.message.offset)
                found.older, found.refused_before = self.older, self.refused_before
            self.older, self.refused_before = found, refused
        self.unread = _nothing_before(self.message)


@dataclass
class Candidates:
    """What is known of one partition's end, as a chain from the newest candidate to older ones.

    Attributes:
        newest: None if none is known.
    """

    newest: Candidate | None = None

    def append(self, message: StateMessage, since: int, appended: int) -> None:
        """Put `message` before all others.

        One that has not loaded is not kept, so that there are not more and more of them: it is
        found again when it is needed.
        """
        last = self.newest
        self.newest = newest = Candidate(message, range(since, message.offset), appended)
        if last is None or last.has_loaded:
            newest.older = last
        elif last.is_refused and not last.unread:
            newest.older = last.older
            newest.refused_before = min(last.refused_before, last.message.timestamp)
        else:
            newest.unread = range(last.unread.start, message.offset)
            newest.older, newest.refused_before = last.older, last.refused_before

    def log_starts_at(self, start: int, appended: int) -> None:
        """Forget what is before `start` if a message has been appended since it was known to be in
        the log."""
        newer, candidate = None, self.newest
        while candidate and candidate.message.offset >= start:
            candidate.seen_after = appended
            candidate.unread = range(max(candidate.unread.start, start), candidate.message.offset)
            newer, candidate = candidate, candidate.older
        if candidate is None or candidate.seen_after == appended:
            return
        if newer:
            newer.older = None
        else:
            self.newest = None


def _nothing_before(message: StateMessage) -> range:
    return range(message.offset, message.offset)
