"""Fetching a model, from the addresses that are allowed and no others."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import stat
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO
from urllib.parse import urljoin

import aiohttp
import fsspec  # type: ignore[import-untyped]
from fsspec.asyn import get_loop  # type: ignore[import-untyped]
from fsspec.implementations.asyn_wrapper import (  # type: ignore[import-untyped]
    AsyncFileSystemWrapper,
)
from yarl import URL

from app.message_errors import InvalidMessage, NotServed, RetryableError
from app.model.uri import FORM, HTTP, SFTP, ModelUri, parse_prefix, parse_uri, redacted_uri

CHUNK = 2**20
RANGE = 2**23  # a request each
POLL_SECONDS = 0.5
CLOSE_SECONDS = 5.0
MOST_REDIRECTS = 5
REDIRECTS = {301, 302, 303, 307, 308}
REASONS = {401: "refused", 403: "refused", 404: "gone", 410: "gone"}


class _Received:
    """What has come: hashed, written, and not too much."""

    def __init__(self, address: ModelUri, into: BinaryIO, most_bytes: int) -> None:
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
            raise RetryableError(
                "disk", f"{self._address} cannot be written: {error.strerror}"
            ) from None


class Source:
    """Where models come from: URIs that are one of `prefixes`, or below one."""

    def __init__(self, prefixes: Sequence[str], most_bytes: int, seconds: float) -> None:
        """
        Raises:
            ValueError: a prefix makes no sense.
        """
        self._most_bytes, self._seconds = most_bytes, seconds
        self._prefixes = [parse_prefix(prefix) for prefix in prefixes]

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
            RetryableError: with reason `gone`, `refused`, `slow`, `unreachable` or `disk`.
        """
        address = self._allowed(uri)
        received = _Received(address, into, self._most_bytes)
        end = time.monotonic() + self._seconds

        def check() -> None:
            checkpoint()
            if time.monotonic() >= end:
                came = f"{received.size} bytes came in {self._seconds:g} s"
                raise RetryableError("slow", f"{address}: only {came}")

        if address.scheme == "file":
            self._read_file(address, received, check)
        else:
            read = self._read_http if address.scheme in HTTP else _read_other
            _in_loop(address, read(address, received), check)
        return received.hash.hexdigest()

    def _allowed(self, uri: str, redirected_from: ModelUri | None = None) -> ModelUri:
        what = f"{redirected_from} redirects to" if redirected_from else "uri is"
        try:
            address = parse_uri(urljoin(redirected_from.uri, uri) if redirected_from else uri)
        except ValueError:
            raise InvalidMessage("uri", f"{what} {redacted_uri(uri)}: accepted is {FORM}") from None
        if not any(map(address.is_within, self._prefixes)) or (
            redirected_from and address.scheme not in HTTP
        ):
            raise self._not_allowed(f"{what} {address}")
        return address

    def _not_allowed(self, what: str) -> InvalidMessage:
        accepted = ", ".join(map(str, self._prefixes)) or "nothing: there are no prefixes"
        return InvalidMessage("uri", f"{what}: accepted is what is below {accepted}")

    async def _read_http(self, address: ModelUri, received: _Received) -> None:
        # fsspec's HTTPFileSystem follows redirects anywhere, asks twice for the size, and reports
        # every error of that as a missing file
        async with aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            read_bufsize=CHUNK,
            trust_env=True,  # HTTP_PROXY, HTTPS_PROXY and NO_PROXY
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
                        raise RetryableError(
                            reason, f"{address} {detail}; accepted is 200, identity"
                        )
                    received.expect(answer.content_length)
                    while chunk := await answer.content.read(CHUNK):
                        received.add(chunk)
                    return
        raise RetryableError(
            "unreachable", f"{address} is where {MOST_REDIRECTS} redirects did not end"
        )

    def _read_file(self, address: ModelUri, received: _Received, check: Callable[[], None]) -> None:
        with _translating_errors(address):
            path = os.path.realpath(address.path)
            folders = [os.path.realpath(p.path) for p in self._prefixes if p.scheme == "file"]
            if not any(os.path.commonpath([path, folder]) == folder for folder in folders):
                raise self._not_allowed(f"uri is {address}, a link to elsewhere")
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise InvalidMessage("uri", f"uri is {address}: accepted are regular files")
            file = io.FileIO(path, opener=_open_at_once)
        with file:
            received.expect(os.fstat(file.fileno()).st_size)
            while True:
                check()
                with _translating_errors(address):
                    chunk = file.read(CHUNK)
                if not chunk:
                    return
                received.add(chunk)


def _open_at_once(path: str, flags: int) -> int:
    # it may have become a FIFO or a link meanwhile
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


async def _read_other(address: ModelUri, received: _Received) -> None:
    options: dict[str, Any] = {"use_listings_cache": False}
    if address.scheme in SFTP:
        options = {"skip_instance_cache": True}  # fsspec hands any other on to paramiko
    if address.query:
        options["version_aware"] = True
    # in a thread, because one package asks the network for credentials as it is constructed
    files, path = await asyncio.to_thread(fsspec.core.url_to_fs, address.uri, **options)
    try:
        await _read_ranges(files, path, received)
    finally:
        if address.scheme in SFTP:
            files.client.close()


async def _read_ranges(files: Any, path: str, received: _Received) -> None:
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


def _in_loop(address: ModelUri, work: Coroutine[Any, Any, None], check: Callable[[], None]) -> None:
    """Run `work` in fsspec's own thread, and check on it from here."""
    ended = threading.Event()
    errors: list[Exception] = []

    async def run() -> None:
        try:
            with _translating_errors(address):
                await work
        except NotServed as error:
            errors.append(error)
        finally:
            ended.set()

    transfer = asyncio.run_coroutine_threadsafe(run(), get_loop())
    try:
        check()
        while not ended.wait(POLL_SECONDS):
            check()
    except BaseException:
        transfer.cancel()
        ended.wait(CLOSE_SECONDS)
        raise
    if errors:
        raise errors[0]


@contextmanager
def _translating_errors(address: ModelUri) -> Iterator[None]:
    """Say what an error means; its own text may hold the query, and with it a secret."""
    try:
        yield
    except NotServed:
        raise
    except ImportError as error:
        raise InvalidMessage("uri", f"uri is {address}: {error}") from None
    except FileNotFoundError:
        raise RetryableError("gone", f"{address} is not there") from None
    except PermissionError:
        raise RetryableError("refused", f"{address} may not be read") from None
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # each package has its own
        # the text of these has no more than host and port
        text = f": {error}" if isinstance(error, aiohttp.ClientConnectorError) else ""
        if not text and isinstance(error, OSError) and error.errno:
            text = f": {os.strerror(error.errno)}"
        raise RetryableError("unreachable", f"{address}: {type(error).__name__}{text}") from None
