"""URIs of models, parsed so that no two programs read them differently."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote

import fsspec  # type: ignore[import-untyped]
from yarl import URL

from app.settings import SettingsError

HTTP = ("http", "https")
SFTP = ("sftp", "ssh")
S3 = ("s3", "s3a")
AZURE = ("abfs", "abfss", "az")
# those with a user or a container before "@", which is a part of the address and no secret
WITH_OWNER = (*SFTP, *AZURE)
# by scheme, the extra of this project that has the package which fsspec needs for it
EXTRAS = {
    **dict.fromkeys(S3, "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(AZURE, "abfs"),
    **dict.fromkeys(SFTP, "sftp"),
}
PACKAGES = {"s3": "s3fs", "gcs": "gcsfs", "abfs": "adlfs", "sftp": "paramiko"}
SCHEMES = ("file", *HTTP, *EXTRAS)
# RFC 3986, without what is refused anyway: what does not match is passed to no other parser
_CHARACTER = r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]"
_URI = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<owner>[A-Za-z0-9._-]+@)?"
    r"(?P<host>[A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?P<port>:[0-9]{1,5})?"
    rf"(?P<path>/(?:{_CHARACTER}|(?<=[^ /]) (?=[^ /?]))*)?(?P<query>\?(?:{_CHARACTER}|\?)*)?"
)
_VERSION = re.compile(r"\?versionId=[A-Za-z0-9._-]{1,1024}")
FOLDER = re.compile(rf"/{_CHARACTER}*")
_DOTS = re.compile(r"\.+(;.*)?")  # Tomcat takes `..;x` for `..`
FORM = (
    "scheme://host/path in ASCII, without a fragment, '//', '..', '\\' or what is encoded twice; "
    "'%' and '?' only with http and https, but for ?versionId= with s3; a port only with these and "
    "sftp; a name before '@' only with sftp, and of a container with abfss; spaces, within a name, "
    "not with http and https; and no host with file"
)


def redacted_uri(uri: str) -> str:
    """Write what was given as a URI without what may be a secret in it."""
    match = _URI.fullmatch(uri)
    if match and (not match["owner"] or match["scheme"].lower() in WITH_OWNER):
        text = uri.partition("?")[0]
    else:
        text = "(hidden)" if re.search("[?#@]", uri) else ascii(uri)
    return text if len(text) <= 200 else f"{text[:200]}..."


class ModelUri(NamedTuple):
    """A URI in its normal form, which is both compared and requested."""

    scheme: str
    host: str
    path: str
    query: str

    def __str__(self) -> str:
        return redacted_uri(self.uri)

    @property
    def uri(self) -> str:
        return f"{self.scheme}://{self.host}{self.path}{self.query}"

    def is_within(self, prefix: ModelUri) -> bool:
        folder = prefix.path if prefix.path.endswith("/") else f"{prefix.path}/"
        return self[:2] == prefix[:2] and (self.path == prefix.path or self.path.startswith(folder))


def parse_uri(uri: str) -> ModelUri:
    """Bring a URI into its normal form.

    Raises:
        ValueError: it is not of the `FORM` that is accepted.
    """
    match = _URI.fullmatch(uri)
    if not match:
        raise ValueError(uri)
    scheme, host, port = match["scheme"].lower(), match["host"], match["port"] or ""
    path, query, owner = match["path"] or "", match["query"] or "", match["owner"] or ""
    # as the most generous of servers might read it
    meant = unicodedata.normalize("NFKC", unquote(path, errors="strict"))
    if (
        not meant.isprintable()
        or any(refused in meant for refused in ("%", "\\", "//", "::"))
        or meant.count("/") != path.count("/")
        or any(map(_DOTS.fullmatch, meant.split("/")))
        or (scheme == "file") == bool(host)
        or not (host or path)
        or (owner and scheme not in WITH_OWNER)
        or (port and scheme not in (*HTTP, *SFTP))
        or (query and scheme not in HTTP and not (scheme in S3 and _VERSION.fullmatch(query)))
        or (("%" in path) if scheme not in HTTP else (" " in path))
    ):
        raise ValueError(uri)
    if scheme in HTTP:
        url = URL(f"{scheme}://{host}{port}{path}")
        # a query may be signed, and yarl would write it anew
        return ModelUri(scheme, url.host_port_subcomponent or "", url.raw_path, query)
    return ModelUri(scheme, f"{owner}{host}{port}", path, query)


def parse_prefix(prefix: str) -> ModelUri:
    """Parse what URIs of models may begin with.

    Raises:
        ValueError: it makes no sense.
    """
    try:
        address = parse_uri(prefix)
    except ValueError:
        if FOLDER.fullmatch(prefix):
            raise ValueError(
                f"{redacted_uri(prefix)}: did you mean file://{prefix.rstrip('/')}/?"
            ) from None
        raise ValueError(f"{redacted_uri(prefix)}: accepted is {FORM}") from None
    if address.scheme not in SCHEMES:
        raise ValueError(f"{redacted_uri(prefix)}: accepted are the schemes {', '.join(SCHEMES)}")
    if address.query:
        raise ValueError(
            f"{redacted_uri(prefix)}, and after it a query: accepted are none of those"
        )
    return address


def require_prefixes(prefixes: Iterable[str]) -> None:
    """
    Raises:
        SettingsError: one makes no sense, or its package is not installed.
    """
    for prefix in prefixes:
        try:
            _require_package(parse_prefix(prefix))
        except ValueError as error:
            # not as it was given, for there may be a secret in it
            raise SettingsError(f"MODEL_URI_PREFIXES has {error}") from None


def _require_package(prefix: ModelUri) -> None:
    """
    Raises:
        ValueError: what fsspec needs for the prefix is not installed.
    """
    extra = EXTRAS.get(prefix.scheme)
    if extra is None:
        return
    try:
        fsspec.get_filesystem_class(prefix.scheme)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"{prefix}, for which the package {PACKAGES[extra]} is missing ({error}): in the "
            f"clone, uv pip install -c constraints.txt '.[{extra}]'"
        ) from None
