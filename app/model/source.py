"""Fetching a model, from the addresses that are allowed and no others."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
import stat
import threading
import time
import unicodedata
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import unquote, urljoin

import aiohttp
import fsspec  # type: ignore[import-untyped]
from fsspec.asyn import get_loop  # type: ignore[import-untyped]
from fsspec.implementations.asyn_wrapper import (  # type: ignore[import-untyped]
    AsyncFileSystemWrapper,
)
from yarl import URL

from app.loading import InvalidMessage, TryAgain

CHUNK = 2**20
RANGE = 2**23  # a request each
STEP = 0.5  # seconds between two looks at a transfer
LONGEST_TO_CLOSE = 5.0  # seconds
MOST_REDIRECTS = 5
REDIRECTS = {301, 302, 303, 307, 308}
REASONS = {401: "refused", 403: "refused", 404: "gone", 410: "gone"}

HTTP = ("http", "https")
# RFC 3986, without what is refused anyway: no other parser sees what does not match
_CHARACTER = r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]"
_URI = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<host>[A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?P<port>:[0-9]{1,5})?"
    rf"(?P<path>/{_CHARACTER}*)?(?P<query>\?(?:{_CHARACTER}|\?)*)?"
)
_DOTS = re.compile(r"\.+(;.*)?")  # Tomcat takes `..;x` for `..`
FORM = (
    "scheme://host/path in ASCII, without a user, a fragment, '//', '..', '\\' or what is encoded "
    "twice; '%', '?' and a port only with http and https, and no host with file"
)


def shown_uri(uri: str) -> str:
    """Write a URI, or what was given for one, without what may be a secret in it."""
    if _URI.fullmatch(uri):
        text = uri.partition("?")[0]
    else:
        text = "(hidden)" if re.search("[?#@]", uri) else ascii(uri)
    return text if len(text) <= 200 else f"{text[:200]}..."


class _Address(NamedTuple):
    """A URI in its normal form: what is compared is what is asked for."""

    scheme: str
    host: str
    path: str
    query: str

    def __str__(self) -> str:
        return shown_uri(self.uri)

    @property
    def uri(self) -> str:
        return f"{self.scheme}://{self.host}{self.path}{self.query}"

    def is_within(self, prefix: _Address) -> bool:
        folder = prefix.path if prefix.path.endswith("/") else f"{prefix.path}/"
        return self[:2] == prefix[:2] and (self.path == prefix.path or self.path.startswith(folder))


def _address(uri: str) -> _Address:
    match = _URI.fullmatch(uri)
    if not match:
        raise ValueError(uri)
    scheme, host, port = match["scheme"].lower(), match["host"], match["port"] or ""
    path, query = match["path"] or "", match["query"] or ""
    # as the most generous of servers might read it
    meant = unicodedata.normalize("NFKC", unquote(path, errors="strict"))
    if (
        not meant.isprintable()
        or any(refused in meant for refused in ("%", "\\", "//", "::"))
        or meant.count("/") != path.count("/")
        or any(map(_DOTS.fullmatch, meant.split("/")))
        or (scheme == "file") == bool(host)
        or not (host or path)
        or (scheme not in HTTP and (port or query or "%" in path))
    ):
        raise ValueError(uri)
    if scheme in HTTP:
        url = URL(f"{scheme}://{host}{port}{path}")
        # a query may be signed, and yarl would write it anew
        return _Address(scheme, url.host_port_subcomponent or "", url.raw_path, query)
    return _Address(scheme, host, path, "")


class _Received:
    """What has come: hashed, written, and not too much."""

    def __init__(self, address: _Address, into: BinaryIO, most_bytes: int) -> None:
        self._address, self._into, self._most_bytes = address, into, most_bytes
        self.hash = hashlib.sha256()
        self.size = 0

    def expect(self, size: int | None) -> None:
        if size is not None and size > self._most_bytes:
            detail = f"{self._address} has {size} bytes or more; accepted are {self._most_bytes}"
            raise InvalidMessage("size", detail)

    def add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self.expect(self.size)
        self.hash.update(chunk)
        try:
            self._into.write(chunk)
        except OSError as error:
            raise TryAgain("disk", f"{self._address} cannot be written: {error.strerror}") from None


class Source:
    """Where models come from: URIs that are one of `prefixes`, or below one."""

    def __init__(self, prefixes: Sequence[str], most_bytes: int, seconds: float) -> None:
        """
        Raises:
            ValueError: a prefix makes no sense.
        """
        self._most_bytes, self._seconds = most_bytes, seconds
        self._prefixes: list[_Address] = []
        for prefix in prefixes:
            try:
                self._prefixes.append(_address(prefix))
            except ValueError:
                raise ValueError(f"{shown_uri(prefix)}: accepted is {FORM}") from None
            if "?" in prefix or self._prefixes[-1].scheme not in fsspec.available_protocols():
                raise ValueError(
                    f"{shown_uri(prefix)}: accepted are the schemes that fsspec knows, and no query"
                )

    def check(self, uri: str) -> None:
        """
        Raises:
            InvalidMessage: it is not allowed; with reason `uri`.
        """
        self._allowed(uri)

    def fetch(self, uri: str, into: BinaryIO, checkpoint: Callable[[], None]) -> str:
        """Write what is at `uri`, and give its sha256 in hexadecimal.

        `checkpoint` is called every half a second; what it raises ends the transfer.

        Raises:
            InvalidMessage: with reason `uri` or `size`.
            TryAgain: with reason `gone`, `refused`, `slow`, `unreachable` or `disk`.
        """
        address = self._allowed(uri)
        received = _Received(address, into, self._most_bytes)
        end = time.monotonic() + self._seconds

        def look() -> float:
            checkpoint()
            left = end - time.monotonic()
            if left <= 0:
                came = f"{received.size} bytes came in {self._seconds:g} s"
                raise TryAgain("slow", f"{address}: only {came}")
            return min(left, STEP)

        if address.scheme == "file":
            self._read_file(address, received, look)
        else:
            read = self._read_http if address.scheme in HTTP else _read_other
            _in_loop(address, read(address, received), look)
        return received.hash.hexdigest()

    def _allowed(self, uri: str, redirected_from: _Address | None = None) -> _Address:
        what = f"{redirected_from} redirects to" if redirected_from else "uri is"
        try:
            address = _address(urljoin(redirected_from.uri, uri) if redirected_from else uri)
        except ValueError:
            raise InvalidMessage("uri", f"{what} {shown_uri(uri)}: accepted is {FORM}") from None
        if not any(map(address.is_within, self._prefixes)) or (
            redirected_from and address.scheme not in HTTP
        ):
            raise self._not_allowed(f"{what} {address}")
        return address

    def _not_allowed(self, what: str) -> InvalidMessage:
        accepted = ", ".join(map(str, self._prefixes)) or "nothing: there are no prefixes"
        return InvalidMessage("uri", f"{what}: accepted is what is below {accepted}")

    async def _read_http(self, address: _Address, received: _Received) -> None:
        # fsspec's HTTPFileSystem follows redirects anywhere, asks twice for the size, and takes
        # every error there for a missing file
        async with aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            read_bufsize=CHUNK,
        ) as session:
            for _ in range(MOST_REDIRECTS + 1):
                url = URL(address.uri, encoded=True)
                async with session.get(url, allow_redirects=False) as answer:
                    if answer.status in REDIRECTS and "Location" in answer.headers:
                        address = self._allowed(answer.headers["Location"], address)
                        continue
                    encoding = answer.headers.get("Content-Encoding", "identity")
                    if answer.status != 200 or encoding.lower() != "identity":
                        reason = REASONS.get(answer.status, "unreachable")
                        detail = f"answered {answer.status}, {encoding[:20]!a} encoded"
                        raise TryAgain(reason, f"{address} {detail}; accepted is 200, identity")
                    received.expect(answer.content_length)
                    while chunk := await answer.content.read(CHUNK):
                        received.add(chunk)
                    return
        raise TryAgain("unreachable", f"{address} is where {MOST_REDIRECTS} redirects did not end")

    def _read_file(self, address: _Address, received: _Received, look: Callable[[], float]) -> None:
        with _judged(address):
            path = os.path.realpath(address.path)
            folders = [os.path.realpath(p.path) for p in self._prefixes if p.scheme == "file"]
            if not any(os.path.commonpath([path, folder]) == folder for folder in folders):
                raise self._not_allowed(f"uri is {address}, a link to elsewhere")
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise InvalidMessage("uri", f"uri is {address}: accepted are regular files")
            file = io.FileIO(path, opener=_open_at_once)
        with file:
            received.expect(os.fstat(file.fileno()).st_size)
            while look():
                with _judged(address):
                    chunk = file.read(CHUNK)
                if not chunk:
                    return
                received.add(chunk)


def _open_at_once(path: str, flags: int) -> int:
    # it may have become a FIFO or a link meanwhile
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


async def _read_other(address: _Address, received: _Received) -> None:
    # a thread, as one looks for its credentials on the network at once
    files, path = await asyncio.to_thread(
        fsspec.core.url_to_fs, address.uri, use_listings_cache=False
    )
    if not files.async_impl:
        files = AsyncFileSystemWrapper(files)
    status = await files._info(path)
    if status["type"] != "file":
        raise FileNotFoundError
    received.expect(status["size"])
    for start in range(0, status["size"], RANGE):
        end = min(start + RANGE, status["size"])
        chunk = await files._cat_file(path, start=start, end=end)
        if len(chunk) != end - start:
            raise EOFError
        received.add(chunk)


def _in_loop(address: _Address, work: Coroutine[Any, Any, None], look: Callable[[], float]) -> None:
    """Run `work` in fsspec's own thread, and look after it from here."""
    ended = threading.Event()
    errors: list[Exception] = []

    async def run() -> None:
        try:
            with _judged(address):
                await work
        except (InvalidMessage, TryAgain) as error:
            errors.append(error)
        finally:
            ended.set()

    transfer = asyncio.run_coroutine_threadsafe(run(), get_loop())
    try:
        while not ended.wait(look()):
            pass
    except BaseException:
        transfer.cancel()
        ended.wait(LONGEST_TO_CLOSE)
        raise
    if errors:
        raise errors[0]


@contextmanager
def _judged(address: _Address) -> Iterator[None]:
    """Say of an error what it means; its own text may have the query in it."""
    try:
        yield
    except (InvalidMessage, TryAgain):
        raise
    except ImportError as error:
        raise InvalidMessage("uri", f"uri is {address}: {error}") from None
    except FileNotFoundError:
        raise TryAgain("gone", f"{address} is not there") from None
    except PermissionError:
        raise TryAgain("refused", f"{address} may not be read") from None
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # each package has its own
        # the text of these has no more than host and port
        text = f": {error}" if isinstance(error, aiohttp.ClientConnectorError) else ""
        if not text and isinstance(error, OSError) and error.errno:
            text = f": {os.strerror(error.errno)}"
        raise TryAgain("unreachable", f"{address}: {type(error).__name__}{text}") from None
