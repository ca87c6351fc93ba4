"""Whether the head of a request has come, so that no thread has to wait for it."""

from __future__ import annotations

import re

from gunicorn.http.message import PP_V2_SIGNATURE

# of a head; gunicorn limits only its parts, 100 fields of 8 KiB
MOST_BYTES = 64 * 1024

# https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, 2.2
PP_V2_HEAD_BYTES = 16
PP_V2_LENGTH = slice(14, 16)

END = re.compile(rb"\n\r?\n")


def is_complete(received: bytes, proxy_protocol: str, new: int | None = None) -> bool:
    """Whether the head of a request has come, and the PROXY protocol's header before it.

    Args:
        proxy_protocol: as gunicorn's option has it: off, v1, v2 or auto.
        new: how many bytes were not looked at before; all if it is not given.
    """
    begin = _proxy_header_end(received, proxy_protocol)
    if begin is None:
        return False
    if new is not None and proxy_protocol == "off":
        begin = max(len(received) - new - 2, 0)
    return bool(END.search(received, begin))


def _proxy_header_end(received: bytes, mode: str) -> int | None:
    """Where the request begins, after the PROXY protocol's header; None while that is to come."""
    if mode == "off":
        return 0
    if len(received) < len(PP_V2_SIGNATURE):
        return None
    if mode != "v1" and received.startswith(PP_V2_SIGNATURE):
        if len(received) < PP_V2_HEAD_BYTES:
            return None
        end = PP_V2_HEAD_BYTES + int.from_bytes(received[PP_V2_LENGTH], "big")
        return end if len(received) >= end else None
    if mode != "v2" and received.startswith(b"PROXY "):
        end_of_line = received.find(b"\r\n")
        return end_of_line + 2 if end_of_line >= 0 else None
    return 0
