"""Certificates and keys in files, as Kafka and its clients take them."""

from __future__ import annotations

from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization


def write(certificate: trustme.LeafCert, path: Path, password: str = "") -> None:
    """Write .crt, .key, and a .pem with both.

    The key is in PKCS#8, the only form that Kafka takes.

    Args:
        path: of the files, without what their names end with.
        password: what the key is encrypted with, in .key.encrypted; without one there is none.
    """
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    plain = _pkcs8(certificate, serialization.NoEncryption())
    path.with_suffix(".crt").write_bytes(chain)
    path.with_suffix(".key").write_bytes(plain)
    path.with_suffix(".pem").write_bytes(plain + chain)
    if password:
        encryption = serialization.BestAvailableEncryption(password.encode())
        path.with_suffix(".key.encrypted").write_bytes(_pkcs8(certificate, encryption))


def _pkcs8(
    certificate: trustme.LeafCert, encryption: serialization.KeySerializationEncryption
) -> bytes:
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
