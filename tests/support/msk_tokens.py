"""Whether Amazon MSK would take a token: a URL that is signed with the key of an AWS account."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

REGION = "eu-central-1"
SERVICE = "kafka-cluster"
LONGEST = timedelta(seconds=900)
CLOCK_SKEW = timedelta(minutes=5)


def why_not(token: str, secrets: dict[str, str]) -> str:
    """Why the token does not let its bearer in; nothing if it does."""
    try:
        url = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
        said = dict(parse_qsl(urlsplit(url).query, strict_parsing=True))
        access_key, *scope = said["X-Amz-Credential"].split("/")
        date = said["X-Amz-Date"]
        signed_at = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
        lifetime = timedelta(seconds=int(said["X-Amz-Expires"]))
    except (binascii.Error, ValueError, KeyError) as error:
        return f"it is not a signed URL: {error!r}"
    now = datetime.now(timezone.utc)
    if not url.startswith(f"https://kafka.{REGION}.amazonaws.com/?"):
        return f"it is for {url.partition('?')[0]}"
    if said.get("Action") != "kafka-cluster:Connect":
        return f"it is for {said.get('Action')}"
    if scope != [date[:8], REGION, SERVICE, "aws4_request"]:
        return f"its scope is {scope}"
    if lifetime > LONGEST or signed_at > now + CLOCK_SKEW or signed_at + lifetime < now:
        return f"it is not of this time: {lifetime} from {signed_at} on"
    if access_key not in secrets:
        return f"nobody has the access key {access_key}"
    if said.get("X-Amz-Signature") != _signature(
        said, Credentials(access_key, secrets[access_key])
    ):
        return "its signature is not right"
    return ""


def _signature(said: dict[str, str], credentials: Credentials) -> str:
    """That of a URL which says this. The name of the program is put in after the signature."""
    signed = {
        name: value for name, value in said.items() if name not in ("X-Amz-Signature", "User-Agent")
    }
    request = AWSRequest(
        method="GET",
        url=f"https://kafka.{REGION}.amazonaws.com/?{urlencode(signed, quote_via=quote)}",
    )
    request.context["timestamp"] = said["X-Amz-Date"]
    signer = SigV4QueryAuth(credentials, SERVICE, REGION)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    signature: str = signer.signature(text, request)
    return signature
