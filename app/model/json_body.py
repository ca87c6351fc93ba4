"""The JSON of an inference request, parsed by orjson.

Who parses holds the GIL, some 4 ms for each MB, and takes some twenty times as much memory as the
text has. So long lists of numbers are set aside, and read in pieces.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from app.strict_json import parse_json

# how long a list may be that is parsed at once
LONG_BYTES = 2**16
# a text with more of them is one of strings, which are not set aside
MOST_QUOTES = 10_000
# what orjson takes for each byte of the text while it parses, and for what it gives, at most
BYTES_PER_BYTE, BYTES_PER_VALUE, BYTES_PER_OBJECT = 17, 64, 512
BYTES_PER_PIECE = LONG_BYTES * (BYTES_PER_BYTE + BYTES_PER_VALUE // 2)

# stands for a list that is set aside; nobody can guess it
_MARK = secrets.token_hex(16)


@dataclass(frozen=True)
class LongList:
    """A list of numbers, nested or not, that is not parsed yet: `text[begin:end]`.

    Attributes:
        count: of the numbers, if none of the lists within it is empty: each but the last has a
            comma after it.
    """

    text: bytes
    begin: int
    end: int
    count: int

    def pieces(
        self, shape: Sequence[int], hold: Callable[[int], None]
    ) -> Iterator[tuple[list[Any], list[int]]]:
        """Give what the list holds in shorter lists, each with the shape that it should have.

        Args:
            shape: of the whole, if it is nested.
            hold: called with how much memory is about to be taken for a piece, beyond what those
                of a tensor take.

        Raises:
            ValueError: it is no JSON, or not nested so.
        """
        is_nested = _NESTED.match(self.text, self.begin, self.end) is not None
        nested = list(shape) if is_nested else [self.count]
        return _pieces(self.text, self.begin, self.end, nested, hold)


_NESTED = re.compile(rb"\s*\[\s*\[")


def _pieces(
    text: bytes, begin: int, end: int, shape: list[int], hold: Callable[[int], None]
) -> Iterator[tuple[list[Any], list[int]]]:
    if 0 not in shape and text.count(b",", begin, end) + 1 != math.prod(shape):
        raise ValueError("the lists within it have other sizes")
    begin, end = _within(text, begin, end)
    rest = shape[1:]
    # its elements are lists of a known depth; what comes after each of them is a comma
    element_end = re.compile(rb"\]\s*" * len(rest) + b",")
    are_elements_long = rest and 0 not in shape and (end - begin) // shape[0] > LONG_BYTES
    while begin < end:
        comma = element_end.search(text, begin + (0 if are_elements_long else LONG_BYTES), end)
        piece_end = comma.end() - 1 if comma else end
        if are_elements_long:
            yield from _pieces(text, begin, piece_end, rest, hold)
        else:
            if piece_end - begin > 2 * LONG_BYTES:  # its lists are of other lengths
                hold((piece_end - begin) * BYTES_PER_PIECE // LONG_BYTES)
            # among numbers NaN is a value too; RFC 8259 lacks it, and many clients write it
            elements = orjson.loads(b"[%b]" % text[begin:piece_end].replace(b"NaN", b"null"))
            yield elements, [len(elements), *rest]
        begin = piece_end + 1


def _within(text: bytes, begin: int, end: int) -> tuple[int, int]:
    """Leave out the brackets, and what space there is around them."""
    first, last = text.find(b"[", begin, end), text.rfind(b"]", begin, end)
    if first < 0 or last < first or (text[begin:first] + text[last + 1 : end]).strip():
        raise ValueError("there is no list in its place")
    return first + 1, last


def parse_body(text: bytes, hold: Callable[[int], None]) -> tuple[Any, dict[str, LongList]]:
    """Parse the JSON of a request, in which NaN is a value too.

    Args:
        hold: called with how many bytes this takes at most, before it does.

    Returns:
        The value, and by the strings that stand for them in it the lists that are set aside.

    Raises:
        ValueError: it is no JSON, or not UTF-8.
    """
    short, lists = _without_long_lists(text)
    hold(_most_memory(short) + (BYTES_PER_PIECE if lists else 0))
    try:
        return orjson.loads(short), lists
    except orjson.JSONDecodeError:
        pass
    try:
        # knows NaN, and says what is wrong
        return parse_json(str(short, "utf-8"), allow_nan=True), lists
    except ValueError as error:
        if not lists:
            raise
        wrong = error
    hold(_most_memory(text))
    try:
        return orjson.loads(text), {}  # a list may have been within a string
    except orjson.JSONDecodeError:
        raise wrong from None


def _most_memory(text: bytes) -> int:
    values = text.count(b",") + text.count(b"[")
    objects = text.count(b"{")
    return BYTES_PER_BYTE * len(text) + BYTES_PER_VALUE * values + BYTES_PER_OBJECT * objects


def _without_long_lists(text: bytes) -> tuple[bytes, dict[str, LongList]]:
    """Give the text with a string in place of each long list of numbers, and the lists by them."""
    lists: dict[str, LongList] = {}
    if len(text) < LONG_BYTES or text.count(b'"') > MOST_QUOTES:
        return text, lists
    short = []
    copied = position = 0
    while position < len(text):
        quote = text.find(b'"', position)
        stop = quote if quote >= 0 else len(text)
        if stop - position > LONG_BYTES:
            found = _long_data(text, position, stop)
            if found:
                mark = f"{_MARK}-{len(lists)}"
                lists[mark] = found
                # in a string this would be its end, and what follows no JSON
                short += [text[copied : found.begin], b'"%b"' % mark.encode()]
                copied = found.end
        position = stop + 1
    return b"".join([*short, text[copied:]]), lists


def _long_data(text: bytes, position: int, stop: int) -> LongList | None:
    """Give the list between two quotes, if it is the `data` of an input."""
    begin = text.find(b"[", position, stop)
    is_data = text.endswith(b'"data"', 0, position) and text[position:begin].strip() == b":"
    if begin < 0 or not is_data:
        return None
    object_end = text.find(b"}", begin, stop)
    end = text.rfind(b"]", begin, object_end if object_end >= 0 else stop) + 1
    commas = text.count(b",", begin, end) if end else 0
    return LongList(text, begin, end, commas + 1) if commas else None
