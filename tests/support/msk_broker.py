"""An Apache Kafka that lets its clients in as Amazon MSK does with IAM: by a URL that they sign."""

from __future__ import annotations

import contextlib
import io
import socket
import socketserver
import ssl
import struct
import tempfile
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme

from dev import apache_kafka
from dev.apache_kafka import ApacheKafka
from dev.broker import pipe
from tests.support.coordinator import await_coordinator
from tests.support.msk_tokens import why_not

ACCESS_KEY = "AKIAEXAMPLE"
SECRET_KEY = "s3cret/of+the=access key"
SIGN_IN_SECONDS = 30

MECHANISM = b"OAUTHBEARER"
SASL_HANDSHAKE, API_VERSIONS, SASL_AUTHENTICATE = 17, 18, 36
UNSUPPORTED_MECHANISM, REFUSED = 33, 58


class MskBroker(socketserver.ThreadingTCPServer):
    """Stands before a listener of Kafka's without locks: has TLS, and passes on what clients say
    once they have signed in by OAUTHBEARER.

    The threads of its connections share what they count, and have one lock for it.

    Attributes:
        address: host:port, which is what Kafka says of itself too.
        kafka: behind it; whoever talks to its PLAINTEXT listener may do all.
        ca: PEM file, the authority of its certificate.
        environ: what the AWS packages take the right credentials from.
        secrets: by access key.
        refuses: whether nobody may sign in.
    """

    daemon_threads = True
    kafka: ApacheKafka
    ca: Path

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.address = f"localhost:{self.server_address[1]}"
        self.environ = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            # whoever has none is to look nowhere else
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }
        self.secrets = {ACCESS_KEY: SECRET_KEY}
        self.refuses = False
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._lock = threading.Lock()
        self._sign_ins = 0
        self._refusals: list[str] = []
        self._signed_in: set[socket.socket] = set()

    @property
    def sign_ins(self) -> int:
        """How often somebody was let in until now."""
        with self._lock:
            return self._sign_ins

    @property
    def refusals(self) -> list[str]:
        """Why somebody was not let in until now, each time."""
        with self._lock:
            return list(self._refusals)

    def cut_off(self) -> None:
        """End the connections of all that have signed in, who may do so again."""
        with self._lock:
            for client in self._signed_in:
                with contextlib.suppress(OSError):  # it ends by itself
                    client.shutdown(socket.SHUT_RDWR)

    def admits(self, token: str) -> bool:
        reason = "nobody may sign in" if self.refuses else why_not(token, self.secrets)
        with self._lock:
            if reason:
                self._refusals.append(reason)
            else:
                self._sign_ins += 1
        return not reason

    @contextlib.contextmanager
    def signed_in(self, client: socket.socket) -> Iterator[None]:
        with self._lock:
            self._signed_in.add(client)
        try:
            yield
        finally:
            with self._lock:
                self._signed_in.discard(client)


@dataclass(frozen=True)
class _Request:
    """What a client sends, from its head on, as the guide to Kafka's protocol has it."""

    frame: bytes
    api: int
    version: int
    correlation: bytes
    body: io.BytesIO

    @classmethod
    def of(cls, frame: bytes) -> _Request:
        api, version, correlation, name = struct.unpack(">hh4sh", frame[:10])
        return cls(frame, api, version, correlation, io.BytesIO(frame[10 + max(name, 0) :]))

    def text(self) -> bytes:
        (size,) = struct.unpack(">h", self.body.read(2))
        return self.body.read(size)

    def token(self) -> bytes:
        """Of SaslAuthenticate; since version 2 the head has tags, and lengths are one more."""
        if self.version < 2:
            (size,) = struct.unpack(">i", self.body.read(4))
            return self.body.read(size)
        assert self._varint() == 0, "tags in the head"
        return self.body.read(self._varint() - 1)

    def _varint(self) -> int:
        number = shift = 0
        while True:
            (byte,) = self.body.read(1)
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7


class _Connection(socketserver.BaseRequestHandler):
    server: MskBroker

    def handle(self) -> None:
        host, _, port = self.server.kafka.address_of("MSK").partition(":")
        self.request.settimeout(SIGN_IN_SECONDS)
        with (
            contextlib.suppress(OSError),  # either side has ended it
            self.server.tls.wrap_socket(self.request, server_side=True) as self._client,
            socket.create_connection((host, int(port))) as self._kafka,
        ):
            if self._signs_in():
                self._client.settimeout(None)
                with self.server.signed_in(self._client):
                    pipe(self._client, self._kafka)

    def _signs_in(self) -> bool:
        """Whether the client does; nothing that is before it has any other answer."""
        while True:
            request = _Request.of(_received(self._client))
            if request.api == API_VERSIONS:
                _send(self._kafka, request.frame)
                _send(self._client, _received(self._kafka))
            elif request.api == SASL_HANDSHAKE:
                break
            else:
                return False
        is_known = request.text() == MECHANISM
        error = 0 if is_known else UNSUPPORTED_MECHANISM
        offered = struct.pack(">ih", 1, len(MECHANISM)) + MECHANISM
        _send(self._client, request.correlation + struct.pack(">h", error) + offered)
        if not is_known:
            return False
        return self._signs_in_bare() if request.version == 0 else self._signs_in_by_request()

    def _signs_in_bare(self) -> bool:
        """As before Kafka 1.0: without heads around tokens, and without a word for a refusal."""
        is_admitted = self._is_admitted(_received(self._client))
        if is_admitted:
            _send(self._client, b"")
        return is_admitted

    def _signs_in_by_request(self) -> bool:
        request = _Request.of(_received(self._client))
        if request.api != SASL_AUTHENTICATE:
            return False
        is_admitted = self._is_admitted(request.token())
        error = 0 if is_admitted else REFUSED
        text = b"" if is_admitted else f"[{uuid.uuid4()}]: Access denied".encode()
        no_token, no_end = b"", struct.pack(">q", 0)
        if request.version < 2:
            answer = struct.pack(">hh", error, len(text)) + text
            answer += struct.pack(">i", len(no_token))
            answer += no_end if request.version else b""
        else:
            no_tags = b"\0"
            answer = no_tags + struct.pack(">hB", error, len(text) + 1) + text
            answer += struct.pack(">B", len(no_token) + 1) + no_end + no_tags
        _send(self._client, request.correlation + answer)
        return is_admitted

    def _is_admitted(self, message: bytes) -> bool:
        """Whether what it says, as RFC 7628 has it, lets a client in."""
        _, _, rest = message.partition(b"\1auth=Bearer ")
        return self.server.admits(rest.partition(b"\1")[0].decode("ascii", "replace"))


def _received(source: socket.socket) -> bytes:
    """The next message, which its length is before.

    Raises:
        ConnectionError: there is none.
    """
    (size,) = struct.unpack(">i", _exactly(source, 4))
    return _exactly(source, size)


def _exactly(source: socket.socket, size: int) -> bytes:
    read = b""
    while len(read) < size:
        more = source.recv(size - len(read))
        if not more:
            raise ConnectionError("it was closed")
        read += more
    return read


def _send(sink: socket.socket, message: bytes) -> None:
    sink.sendall(struct.pack(">i", len(message)) + message)


@contextlib.contextmanager
def running() -> Iterator[MskBroker]:
    """Run it, and a Kafka behind it, for as long as the block.

    Raises:
        RuntimeError: Kafka did not come up; the text has the end of its output.
    """
    with (
        tempfile.TemporaryDirectory(prefix="certificates-") as folder,
        MskBroker() as broker,
        apache_kafka.running(
            {
                **apache_kafka.LEFT_ALONE,
                "listener.security.protocol.map": ",".join(
                    f"{name}:PLAINTEXT" for name in ("PLAINTEXT", "CONTROLLER", "MSK")
                ),
                "advertised.listeners": f"MSK://{broker.address}",
            },
            ["PLAINTEXT", "MSK"],
        ) as broker.kafka,
    ):
        authority = trustme.CA()
        broker.ca = Path(folder) / "ca.pem"
        authority.cert_pem.write_to_path(broker.ca)
        authority.issue_cert("localhost").configure_cert(broker.tls)
        await_coordinator(broker.kafka.address)
        thread = threading.Thread(target=broker.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield broker
        finally:
            broker.shutdown()
            broker.cut_off()
            thread.join()
