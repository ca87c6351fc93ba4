"""The conditions of a request for the state: which versions it knows, what it waits for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from flask import Request
from marshmallow import ValidationError
from werkzeug.datastructures import ETags
from werkzeug.exceptions import BadRequest
from werkzeug.http import parse_etags, parse_list_header

from app.state import StateView
from app.web.schemas import OFFSET_ACCEPTED, OffsetField

# of common proxies HAProxy is the first to give up, after 50 s
LONGEST_WAIT_SECONDS = 45
# for an offset, unless the client says how long
OFFSET_WAIT_SECONDS = 5

SECONDS = re.compile("[0-9]{1,1000}")

# what proxies that compress an answer add to its ETag: Apache's mod_deflate, mod_brotli, mod_zstd
ADDED_TO_ETAGS = ("", "-gzip", "-br", "-zstd")

_OFFSET = OffsetField()


@dataclass(frozen=True)
class Conditions:
    """What a request for the state asks for.

    Attributes:
        min_offsets: by partition, the offset through which it has to have been read.
        known: the versions that the client has.
        preferred_wait: how many seconds the client would wait, if it says so.
    """

    min_offsets: Mapping[int, int]
    known: ETags
    preferred_wait: int | None

    @classmethod
    def of(cls, request: Request) -> Conditions:
        """Read what is asked for.

        Raises:
            BadRequest: a `min_offset` makes no sense.
        """
        # Flask's own properties take longer, and most requests have none of these
        environ = request.environ
        return cls(
            _min_offsets(request.args.getlist("min_offset")) if environ.get("QUERY_STRING") else {},
            parse_etags(environ.get("HTTP_IF_NONE_MATCH")),
            parse_wait(environ.get("HTTP_PREFER", "")),
        )

    @property
    def wait_seconds(self) -> int:
        if self.preferred_wait is not None:
            return self.preferred_wait
        return OFFSET_WAIT_SECONDS if self.min_offsets else 0

    def is_met_by(self, view: StateView) -> bool:
        """Whether the view is what the request waits for, or can never become it."""
        if self._unknown_partitions(view):
            return True
        return self.is_read_through(view) and not (
            self.preferred_wait and view.snapshot and self.is_known(view.snapshot.version)
        )

    def is_read_through(self, view: StateView) -> bool:
        return view.snapshot is not None and all(
            view.positions.get(partition, 0) > offset
            for partition, offset in self.min_offsets.items()
        )

    def is_known(self, version: str) -> bool:
        return any(self.known.contains_weak(version + added) for added in ADDED_TO_ETAGS)

    def _unknown_partitions(self, view: StateView) -> set[int]:
        return self.min_offsets.keys() - view.positions if view.positions else set()

    def require_partitions(self, view: StateView) -> None:
        """Refuse a `min_offset` of a partition that the topic does not have.

        Raises:
            BadRequest: the topic has no such partition.
        """
        if unknown := self._unknown_partitions(view):
            partition = min(unknown)
            raise BadRequest(
                f"min_offset is {partition}:{self.min_offsets[partition]}: accepted are the "
                f"topic's partitions, 0 to {max(view.positions)}"
            )

    def describe_unreached(self, view: StateView) -> str:
        """Say which `min_offset` is not reached, and where the position is."""
        if not view.positions:
            return f"which offsets have been read is not known before the log is: {view.reason}"
        return "; ".join(
            f"min_offset is {partition}:{offset}, and partition {partition} is at position "
            f"{position}, the offset that is read next"
            for partition, offset in self.min_offsets.items()
            if (position := view.positions.get(partition, 0)) <= offset
        )


def _min_offsets(given: list[str]) -> dict[int, int]:
    offsets: dict[int, int] = {}
    for value in given:
        try:
            partition, offset = _OFFSET.deserialize(value)
        except ValidationError as error:
            raise BadRequest(f"min_offset is {value[:100]!r}: {OFFSET_ACCEPTED}") from error
        offsets[partition] = max(offset, offsets.get(partition, 0))
    return offsets


def parse_wait(prefer: str) -> int | None:
    """Give the seconds that a `Prefer` header asks to wait, up to `LONGEST_WAIT_SECONDS`.

    What makes no sense is ignored, and of several the first counts (RFC 7240, 2).
    """
    for preference in parse_list_header(prefer) if prefer else ():
        name, _, value = preference.partition(";")[0].partition("=")
        seconds = value.strip(' \t"')
        if name.strip().lower() == "wait" and SECONDS.fullmatch(seconds):
            return min(int(seconds), LONGEST_WAIT_SECONDS)
    return None
