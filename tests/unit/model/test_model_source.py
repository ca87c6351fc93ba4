"""Fetching models, from servers of every kind."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import os
import posixpath
import random
import subprocess
import sys
import threading
from urllib.parse import unquote, urlsplit

import fsspec
import paramiko
import psutil
import pytest
import trustme
from fsspec.asyn import AsyncFileSystem
from hypothesis import example, given
from hypothesis import strategies as st

from app.message_errors import InvalidMessage, RetryableError
from app.model import source
from app.model import uri as model_uri
from app.model.source import Source, redacted_uri
from tests.support.model_server import serving, speaking
from tests.support.sftp_server import sftp_serving
from tests.support.waiting import eventually

MODEL = b"some model " * 1000
SHA256 = hashlib.sha256(MODEL).hexdigest()
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


def nothing() -> None:
    pass


def fetched(uri, *prefixes, most_bytes=11_000, seconds=20.0, checkpoint=nothing) -> bytes:
    """What comes from `uri`, which is allowed unless others are."""
    into = io.BytesIO()
    sha256 = Source(prefixes or [uri], most_bytes, seconds).fetch(uri, into, checkpoint)
    assert sha256 == hashlib.sha256(into.getvalue()).hexdigest()
    return into.getvalue()


def failure(uri, *args, **kwargs) -> tuple[str, str]:
    """The kind and reason of what comes instead of the model."""
    with pytest.raises((InvalidMessage, RetryableError)) as raised:
        fetched(uri, *args, **kwargs)
    return type(raised.value).__name__, raised.value.reason


# ---- what is allowed

PREFIXES = [
    "https://models.example.com/prod/",
    "https://models.example.com/v1",
    "s3://bucket/models/",
    "file:///srv/models/",
    "abfss://models@acme.dfs.core.windows.net/",
    "sftp://models@files.example.com:2222/srv/",
]


@pytest.mark.parametrize(
    ("prefix", "uri"),
    [
        ("https://models.example.com/prod/", "https://models.example.com/prod/a/b.onnx"),
        ("https://models.example.com/prod", "https://models.example.com/prod"),
        ("https://models.example.com/prod", "https://models.example.com/prod/x"),
        ("https://models.example.com", "https://models.example.com/any"),
        ("https://models.example.com/prod/", "HTTPS://Models.Example.COM:443/%70rod/x%20y"),
        ("https://models.example.com:443/prod/", "https://models.example.com/prod/x?sig=a%2Fb/.."),
        ("https://models.example.com/prod/", "https://models.example.com./prod/x"),
        ("http://[::1]:8080/", "http://[::1]:8080/x"),
        ("s3://bucket/models/", "s3://bucket/models/x@2.onnx"),
        ("file:///srv/models/", "file:///srv/models/x.onnx"),
        ("file:///srv/models/", "file:///srv/models/of last week/x.onnx"),
        ("s3://bucket/models/", "s3://bucket/models/of last week/x (2).onnx"),
        ("s3://bucket/models/", "s3://bucket/models/x?versionId=3sL4kqtJ.l_x-1"),
        ("abfss://models@acme.dfs.core.windows.net/", "abfss://models@acme.dfs.core.windows.net/x"),
        ("sftp://models@files.example.com:2222/srv/", "sftp://models@files.example.com:2222/srv/x"),
    ],
)
def test_what_is_below_a_prefix_is_allowed(prefix, uri):
    Source([prefix], 1, 1).check(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "https://models.example.com/production/x",
        "https://models.example.com/v10/x",
        "https://models.example.com/",
        "https://models.example.com.evil.org/prod/x",
        "https://models.example.com:8443/prod/x",
        "http://models.example.com/prod/x",
        "https://models.example.com@evil.org/prod/x",
        "https://user:pw@models.example.com/prod/x",
        "https://evil.org#@models.example.com/prod/x",
        "https://evil.org?@models.example.com/prod/x",
        "https://evil.org\\@models.example.com/prod/x",
        "https:\\\\models.example.com\\prod\\x",
        "https:/models.example.com/prod/x",
        "//models.example.com/prod/x",
        "models.example.com/prod/x",
        "/prod/x",
        "",
        "https://models.example.com/prod/../x",
        "https://models.example.com/prod/./x",
        "https://models.example.com/prod/..",
        "https://models.example.com/prod/%2e%2e/x",
        "https://models.example.com/prod/.%2E/x",
        "https://models.example.com/prod/%252e%252e/x",
        "https://models.example.com/prod/..%2fx",
        "https://models.example.com/prod%2fx",
        "https://models.example.com/prod/a%2Fb",
        "https://models.example.com/prod/a%EF%BC%8Fb",
        "https://models.example.com/prod/..%5cx",
        "https://models.example.com/prod/..\\x",
        "https://models.example.com/prod/..;/x",
        "https://models.example.com/prod/..%3b/x",
        "https://models.example.com/prod/%c0%ae%c0%ae/x",
        "https://models.example.com/prod/%EF%BC%8E%EF%BC%8E/x",
        "https://models.example.com/prod/%E2%80%A5/x",
        "https://models.example.com/prod/%EF%BC%8Fx",
        "https://models.example.com/prod/．．/x",  # noqa: RUF001
        "https://models.example.com/prod//x",
        "https://models.example.com//prod/x",
        "https://models.example.com/prod/x\n",
        "https://models.example.com/prod/x\x00",
        "https://models.example.com/prod/%00x",
        "https://models.example.com/prod/%0d%0ax",
        "https://models.example.com/prod/%zz",
        "https://models.example.com/prod/x y",
        "https://models.example.com/prod/x#fragment",
        "https://models.example.com:99999/prod/x",
        "https://modeIs.example.com/prod/x",
        "https://mödels.example.com/prod/x",
        "https://[::1/prod/x",
        "https:///prod/x",
        "simplecache::https://models.example.com/prod/x",
        "https://models.example.com/prod/x::file:///etc/passwd",
        "https://models.example.com/prod/x::memory:",
        "s3://bucket/models",
        "s3://bucket/models/../x",
        "s3://bucket/models/%2e%2e/x",
        "s3://bucket/models/a%20b",
        "s3://bucket/models/x?versionId=",
        "s3://bucket/models/x?versionId=1&other=2",
        "s3://bucket/models/x?other=1",
        "s3://bucket/models/ x",
        "s3://bucket/models/x ",
        "s3://bucket/models/x /y",
        "s3://bucket/models/x  y",
        "s3://bucket/models/ ../x",
        "gs://bucket/models/x?versionId=1",
        "abfss://other@acme.dfs.core.windows.net/x",
        "abfss://models@evil.dfs.core.windows.net/x",
        "abfss://acme.dfs.core.windows.net/x",
        "abfss://models:secret@acme.dfs.core.windows.net/x",
        "sftp://root@files.example.com:2222/srv/x",
        "sftp://models@files.example.com/srv/x",
        "sftp://models:secret@files.example.com:2222/srv/x",
        "s3://bucket:80/models/x",
        "s3://other/models/x",
        "s3://key:secret@bucket/models/x",
        "gs://bucket/models/x",
        "file://host/srv/models/x",
        "file://",
        "file:/srv/models/x",
        "file:///etc/passwd",
        "data:,x",
        "memory://bucket/models/x",
    ],
)
def test_what_is_not_below_a_prefix_is_not(uri):
    with pytest.raises(InvalidMessage, match="accepted is") as raised:
        Source(PREFIXES, 1, 1).check(uri)
    assert raised.value.reason == "uri"
    assert failure(uri, *PREFIXES) == ("InvalidMessage", "uri")


def test_without_prefixes_nothing_is_allowed():
    with pytest.raises(InvalidMessage, match="there are no prefixes"):
        Source([], 1, 1).check("https://models.example.com/x")


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["/", ".", "..", "%", "2e", "2f", "25", "5c", "c0", "ae", ";", "\\"]),
            st.sampled_from(["@", ":", "?", "#", "::", "prod", "h", " ", "%2F", "//", "．"]),  # noqa: RUF001
            st.characters(),
        ),
        max_size=12,
    ).map("".join),
    st.sampled_from(["https://h/prod/", "https://h/prod", "https://h", "https:", ""]),
)
@example("%252e%252e/x", "https://h/prod/")
def test_no_reading_of_an_allowed_uri_leaves_the_prefix(rest, beginning):
    uri = beginning + rest
    try:
        Source(["https://h/prod/"], 1, 1).check(uri)
    except InvalidMessage:
        return
    split = urlsplit(uri)
    assert split.scheme == "https"
    assert split.netloc in ("h", "h:443")
    path = split.path
    for _ in range(4):
        path = unquote(path).replace("\\", "/").partition(";")[0]
        assert posixpath.normpath(path).startswith("/prod/") or path == "/prod/"


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "h/x",
        "nowhere://x/",
        "hdfs://x/",
        "https://u:secret@h/",
        "https://h/?q",
        "https:///x",
        "s3:///x",
        "file://host/x",
        "file://",
        "file:///x/../y",
    ],
)
def test_a_prefix_that_makes_no_sense_is_told_at_once(prefix):
    with pytest.raises(ValueError, match="accepted") as raised:
        Source([prefix], 1, 1)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "uri",
    [
        "https://h/x?secret",
        "https://secret@h/x",
        "https://user:secret@h/x?secret",
        "https://user:secret?@h/x",
        "https:\\\\user:secret@h/x",
        "s3::https://h/x?secret",
        "https://h/x#secret",
    ],
)
def test_secrets_of_a_uri_are_not_shown(uri):
    assert "secret" not in redacted_uri(uri)
    with pytest.raises(InvalidMessage) as raised:
        fetched(uri, "https://other/")
    assert "secret" not in str(raised.value)


# ---- http


def test_a_model_is_fetched_and_hashed():
    with serving({"/m": MODEL}) as server:
        assert fetched(f"{server.uri}/m") == MODEL
        assert server.requests == [("GET", "/m")]
        assert server.headers[0]["Accept-Encoding"] == "identity"


def test_what_was_compared_is_requested_and_a_signed_query_as_it_is():
    with serving({"/prod/m": MODEL}) as server:
        assert fetched(f"{server.uri}/%70rod/m?sig=%2F%41+b", f"{server.uri}/prod/") == MODEL
        assert server.requests == [("GET", "/prod/m?sig=%2F%41+b")]


@pytest.mark.parametrize(("no_proxy", "asks"), [("", 1), ("models.example.com", 0)])
def test_a_proxy_is_asked_where_the_environment_names_one(monkeypatch, no_proxy, asks):
    uri = "http://models.example.com/m"
    with serving({uri: MODEL}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.uri)
        monkeypatch.setenv("NO_PROXY", no_proxy)
        if asks:
            assert fetched(uri) == MODEL
        else:
            assert failure(uri) == ("RetryableError", "unreachable")
        assert len(proxy.requests) == asks


def test_redirects_below_a_prefix_are_followed():
    with serving({"/b/m": MODEL}) as other:
        redirects = {
            "/a/1": (302, {"Location": "2"}, b""),
            "/a/2": (307, {"Location": f"{other.uri}/b/m?sig=1"}, b"moved"),
        }
        with serving(redirects) as server:
            assert fetched(f"{server.uri}/a/1", f"{server.uri}/a/", f"{other.uri}/b/") == MODEL


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_target_of_a_forbidden_redirect_gets_no_request(status):
    with serving({"/m": MODEL}) as forbidden:
        redirect = (status, {"Location": f"{forbidden.uri}/m?token=secret"}, b"")
        with serving({"/m": redirect}) as server:
            with pytest.raises(InvalidMessage, match="redirects to") as raised:
                fetched(f"{server.uri}/m")
            assert raised.value.reason == "uri"
            assert "secret" not in str(raised.value)
        assert forbidden.requests == []


@pytest.mark.parametrize(
    "location",
    [
        "/x",
        "/prod/%2e%2e/x",
        "../x",
        "http://[::1/",
        "file:///etc/passwd",
        "//evil.invalid/prod/m",
        "https://u:p@127.0.0.1/prod/m",
        "\x85/prod/m",
    ],
)
def test_a_redirect_is_compared_like_a_uri(location):
    with serving({"/prod/m": (302, {"Location": location}, b""), "/x": MODEL}) as server:
        allowed = [f"{server.uri}/prod/", "file:///etc/"]
        assert failure(f"{server.uri}/prod/m", *allowed) == ("InvalidMessage", "uri")
        assert server.requests == [("GET", "/prod/m")]


def test_redirects_without_end_are_not_followed_for_ever():
    with serving({"/m": (302, {"Location": "/m"}, b"")}) as server:
        assert failure(f"{server.uri}/m") == ("RetryableError", "unreachable")
        assert len(server.requests) == source.MOST_REDIRECTS + 1


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "refused"),
        (403, "refused"),
        (404, "gone"),
        (410, "gone"),
        (204, "unreachable"),
        (206, "unreachable"),
        (302, "unreachable"),
        (304, "unreachable"),
        (429, "unreachable"),
        (500, "unreachable"),
        (503, "unreachable"),
    ],
)
def test_an_answer_that_is_no_model_is_asked_for_again(status, reason):
    with serving({"/m": (status, {}, b"" if status in (204, 304) else b"no")}) as server:
        assert failure(f"{server.uri}/m?token=secret", f"{server.uri}/") == (
            "RetryableError",
            reason,
        )


def test_a_model_that_says_it_is_too_large_is_not_read():
    def talk(connection):
        connection.send(OK)
        connection.wait_until_closed()

    with speaking(talk) as uri:
        assert failure(uri, most_bytes=999) == ("InvalidMessage", "size")


@pytest.mark.parametrize("head", ["Transfer-Encoding: chunked\r\n", "Connection: close\r\n"])
def test_a_model_without_end_is_cut_off(head):
    def talk(connection):
        connection.send(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode())
        connection.flood(b"1000\r\n" + bytes(0x1000) + b"\r\n")

    with speaking(talk) as uri:
        assert failure(uri, most_bytes=10_000_000) == ("InvalidMessage", "size")


def test_an_answer_that_is_compressed_all_the_same_is_not_unpacked():
    bomb = gzip.compress(bytes(10_000_000))
    with serving({"/m": (200, {"Content-Encoding": "gzip"}, bomb)}) as server:
        assert failure(f"{server.uri}/m") == ("RetryableError", "unreachable")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage",
        random.Random(1).randbytes(100_000),
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9x\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000,
        b"HTTP/1.1 999999999999999999999 OK\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: \r\n\r\n",
        OK + b"half",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\nx\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 \xff\xfe\r\nContent-Encoding: \xff\xff\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=lambda answer: ascii(answer[:60]),
)
def test_a_broken_answer_is_asked_for_again(answer):
    with speaking(lambda connection: connection.send(answer)) as uri:
        assert failure(uri) in [("RetryableError", "unreachable"), ("InvalidMessage", "uri")]


@given(st.binary(max_size=300), st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n", OK]))
def test_whatever_a_server_says_is_judged(rest, beginning):
    with speaking(lambda connection: connection.send(beginning + rest)) as uri:
        try:
            fetched(uri, seconds=5)
        except (InvalidMessage, RetryableError) as error:
            assert error.reason in ("uri", "size", "unreachable", "gone", "refused")


def test_a_connection_that_is_reset_is_asked_for_again():
    def talk(connection):
        connection.send(OK + b"half")
        connection.reset()

    with speaking(talk) as uri:
        assert failure(uri) == ("RetryableError", "unreachable")


def test_a_port_where_nobody_listens_is_asked_again():
    with speaking(nothing) as uri:
        pass
    with pytest.raises(RetryableError, match="Connect call failed") as raised:
        fetched(f"{uri}/m?secret", uri)
    assert raised.value.reason == "unreachable"
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "talk",
    [
        lambda connection: connection.wait_until_closed(),
        lambda connection: connection.drip(b"HTTP/1.1 100 Continue\r\n\r\n"),
        lambda connection: (connection.send(b"HTTP/1.1 200 OK\r\nX: "), connection.drip(b"x")),
        lambda connection: (connection.send(OK), connection.drip(b"x")),
        lambda connection: (connection.send(OK), connection.wait_until_closed()),
    ],
    ids=["silent", "going on", "dripping head", "dripping", "halting"],
)
def test_a_slow_server_is_given_up(talk):
    with speaking(talk) as uri:
        assert failure(uri, seconds=0.3) == ("RetryableError", "slow")


class Ended(Exception):
    pass


def test_what_the_checkpoint_raises_ends_the_transfer(monkeypatch):
    monkeypatch.setattr(source, "POLL_SECONDS", 0.01)
    looks, closed = [], threading.Event()

    def checkpoint():
        looks.append(1)
        if len(looks) == 10:
            raise Ended

    def talk(connection):
        connection.send(OK)
        connection.wait_until_closed()
        closed.set()

    with speaking(talk) as uri:
        with pytest.raises(Ended):
            fetched(uri, checkpoint=checkpoint)
        assert closed.wait(10)


def test_a_disk_that_is_full_is_no_fault_of_the_server():
    with serving({"/m": MODEL}) as server, open("/dev/full", "wb", buffering=0) as full:
        with pytest.raises(RetryableError, match="No space left") as raised:
            Source([server.uri], len(MODEL), 5).fetch(f"{server.uri}/m", full, nothing)
        assert raised.value.reason == "disk"


@pytest.mark.parametrize("is_trusted", [True, False])
def test_only_a_certificate_that_is_trusted_will_do(is_trusted, tmp_path):
    authority, other = trustme.CA(), trustme.CA()
    (authority if is_trusted else other).cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = trustme.ssl.SSLContext(trustme.ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    script = (
        "import sys; from app.model.source import Source\n"
        "try: Source([sys.argv[1]], 10**6, 10).fetch(sys.argv[1], sys.stdout.buffer, int)\n"
        "except Exception as error: print(error.reason, error)"
    )
    with serving({"/m": MODEL}, tls) as server:
        # OpenSSL reads it when aiohttp is imported
        environ = {**os.environ, "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        command = [sys.executable, "-c", script, f"{server.uri}/m"]
        said = subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=True).stdout
    if is_trusted:
        assert said == MODEL
    else:
        assert said.startswith(b"unreachable ")
        assert b"CERTIFICATE_VERIFY_FAILED" in said
        assert server.requests == []


# ---- file


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "m").write_bytes(MODEL)
    (tmp_path / "secret").write_bytes(b"secret")
    return tmp_path / "models"


def test_a_file_is_read(folder):
    (folder / "link").symlink_to("m")
    (folder.parent / "current").symlink_to(folder)
    assert fetched(f"file://{folder}/m", f"file://{folder}/") == MODEL
    assert fetched(f"file://{folder}/link", f"file://{folder}") == MODEL
    current = f"file://{folder.parent}/current/"
    assert fetched(f"{current}m", current) == MODEL


@pytest.mark.parametrize("target", ["../secret", "/etc/passwd", "../models-2/m"])
def test_a_link_that_leads_elsewhere_is_refused(folder, target):
    (folder.parent / "models-2").mkdir()
    (folder.parent / "models-2" / "m").write_bytes(MODEL)
    (folder / "link").symlink_to(target)
    assert failure(f"file://{folder}/link", f"file://{folder}/") == ("InvalidMessage", "uri")


def test_what_is_no_regular_file_is_refused_without_waiting(folder):
    os.mkfifo(folder / "fifo")
    (folder / "folder").mkdir()
    for name in ("fifo", "folder"):
        assert failure(f"file://{folder}/{name}") == ("InvalidMessage", "uri")
    assert failure("file:///dev/zero") == ("InvalidMessage", "uri")


def test_a_file_that_cannot_be_read_is_judged(folder):
    (folder / "loop").symlink_to("loop")
    assert failure(f"file://{folder}/none") == ("RetryableError", "gone")
    assert failure(f"file://{folder}/m/x") == ("RetryableError", "unreachable")
    assert failure(f"file://{folder}/loop") == ("RetryableError", "unreachable")
    assert failure(f"file://{folder}/m", seconds=0) == ("RetryableError", "slow")


def test_a_file_that_is_too_large_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(source, "CHUNK", 10)
    into = io.BytesIO()
    with pytest.raises(InvalidMessage) as raised:
        Source([f"file://{folder}/"], len(MODEL) - 1, 1).fetch(f"file://{folder}/m", into, nothing)
    assert raised.value.reason == "size"
    assert into.getvalue() == b""


# ---- other schemes


class Remote(AsyncFileSystem):
    """Stands for s3 and its like; the path says what goes wrong."""

    protocol = "remote"
    cachable = False

    async def _info(self, path, **kwargs):
        size = 10**12 if "huge" in path else len(MODEL)
        return {"name": path, "size": size, "type": "directory" if "folder" in path else "file"}

    async def _cat_file(self, path, start=None, end=None, **kwargs):
        if "silent" in path:
            await asyncio.sleep(1000)
        if "forbidden" in path:
            raise PermissionError("secret")
        if "broken" in path:
            raise RuntimeError("secret")
        if "cancelled" in path:
            raise asyncio.CancelledError
        return MODEL[start : end - ("short" in path)]


@pytest.fixture(autouse=True)
def _schemes(monkeypatch):
    monkeypatch.setattr(model_uri, "SCHEMES", (*model_uri.SCHEMES, "memory", "remote", "none"))
    fsspec.register_implementation("remote", f"{__name__}.Remote", clobber=True)
    fsspec.register_implementation("none", "not.There", clobber=True, errtxt="Install nonefs")


@pytest.mark.parametrize("size", [999, 1000, 11_000, 2**20])
def test_any_scheme_of_fsspec_is_read_in_ranges(size, monkeypatch):
    monkeypatch.setattr(source, "RANGE", size)
    fsspec.filesystem("memory").pipe("/bucket/m", MODEL)
    assert fetched("memory://bucket/m", "memory://bucket/") == MODEL
    assert fetched("remote://bucket/m", "remote://bucket/") == MODEL
    assert failure("memory://bucket/none", "memory://bucket/") == ("RetryableError", "gone")


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("huge", "InvalidMessage", "size"),
        ("folder", "RetryableError", "gone"),
        ("silent", "RetryableError", "slow"),
        ("forbidden", "RetryableError", "refused"),
        ("broken", "RetryableError", "unreachable"),
        ("cancelled", "RetryableError", "unreachable"),
        ("short", "RetryableError", "unreachable"),
    ],
)
def test_what_goes_wrong_with_any_scheme_is_judged(name, kind, reason):
    with pytest.raises((InvalidMessage, RetryableError)) as raised:
        fetched(f"remote://bucket/{name}", "remote://bucket/", seconds=0.3)
    assert (type(raised.value).__name__, raised.value.reason) == (kind, reason)
    assert "secret" not in str(raised.value)


def test_a_version_of_an_object_is_asked_for(monkeypatch):
    headers = {"ETag": '"1"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
    with serving({"/bucket/of%20last/m": (200, headers, MODEL)}) as server:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "any")
        monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": server.uri})
        assert fetched("s3://bucket/of last/m?versionId=v1", "s3://bucket/") == MODEL
        assert {path.partition("?")[0] for _, path in server.requests} == {"/bucket/of%20last/m"}
        assert all("versionId=v1" in path for _, path in server.requests)


def test_a_file_is_read_over_sftp_and_its_connection_closed(folder, tmp_path, monkeypatch):
    key = paramiko.RSAKey.generate(2048)
    (tmp_path / ".ssh").mkdir()
    key.write_private_key_file(str(tmp_path / ".ssh" / "id_rsa"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with sftp_serving(folder, "models", key) as (port, connections):
        assert fetched(f"sftp://models@localhost:{port}/m") == MODEL
        assert failure(f"sftp://models@localhost:{port}/none") == ("RetryableError", "gone")
        eventually(lambda: not any(connection.is_active() for connection in connections))
        assert len(connections) == 2


def test_a_package_that_is_missing_is_named():
    with pytest.raises(InvalidMessage, match="Install nonefs") as raised:
        fetched("none://bucket/m")
    assert raised.value.reason == "uri"


def test_a_hundred_transfers_leave_nothing_open(folder, monkeypatch):
    monkeypatch.setattr(source, "POLL_SECONDS", 0.01)

    def talk(connection):
        connection.send(OK)
        connection.reset()

    def transfers():
        for _ in range(20):
            assert fetched(f"{server.uri}/m") == MODEL
            failure(f"{server.uri}/m", most_bytes=10)
            failure(f"{server.uri}/none")
            failure(resetting)
            failure(silent, seconds=0.01)
            fetched(f"file://{folder}/m")
            fetched("remote://bucket/m")

    this = psutil.Process()

    def is_as_before():
        return this.num_fds() <= files + 2 and threading.active_count() <= threads + 2

    with (
        serving({"/m": MODEL}) as server,
        speaking(talk) as resetting,
        speaking(lambda connection: connection.wait_until_closed()) as silent,
    ):
        transfers()
        files, threads = this.num_fds(), threading.active_count()
        transfers()
        eventually(is_as_before, within=5)
