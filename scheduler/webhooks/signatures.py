"""Believes a webhook's sender, or says why not. Every scheme signs the raw bytes of the body.

Sources: Standard Webhooks specification (id.timestamp.body, several signatures for rotation); GitHub "Validating
webhook deliveries"; Stripe "Verify webhook signatures manually"; Slack "Verifying requests from Slack".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from datetime import datetime, timedelta

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from scheduler.event_config import Scheme, Verify
from scheduler.webhooks.arrival import Arrival

#: How old (or how far ahead) a signed time may be. Stripe's and Slack's own figure; Standard Webhooks has the same.
TOLERANCE = timedelta(seconds=300)


class Disbelieved(Exception):
    """The request does not prove who sent it; the text says what is missing or wrong, never the right signature."""


def verify_sender(arrival: Arrival, verify: Verify, secret: str | None, *, now: datetime) -> None:
    """Raise Disbelieved unless the request was made by someone who knows the secret."""
    if verify.scheme is Scheme.NONE:
        return
    if not secret:
        raise Disbelieved("the secret of this webhook is missing on the server; set it anew")
    _SCHEMES[verify.scheme](arrival, verify, secret, now)


def _standard(arrival: Arrival, verify: Verify, secret: str, now: datetime) -> None:
    _header(arrival, "webhook-id")
    _recent(_header(arrival, "webhook-timestamp"), now)
    # One malformed signature of several must not hide a good one, as it would inside the library.
    offered = [one for one in _header(arrival, "webhook-signature").split(" ") if one.startswith("v1,")]
    headers = {**arrival.headers, "webhook-signature": " ".join(one for one in offered if _is_base64(one[3:]))}
    try:
        Webhook(secret).verify(arrival.body, headers, json_parse=False)
    except (WebhookVerificationError, ValueError):
        raise Disbelieved("no signature in webhook-signature matches the body; check the secret") from None


def _github(arrival: Arrival, verify: Verify, secret: str, now: datetime) -> None:
    given = _header(arrival, "x-hub-signature-256")
    _same(given, "sha256=" + _hmac(secret, arrival.body, "sha256").hex(), "x-hub-signature-256")


def _stripe(arrival: Arrival, verify: Verify, secret: str, now: datetime) -> None:
    parts = [part.strip().partition("=") for part in _header(arrival, "stripe-signature").split(",")]
    stamp = next((value for name, _, value in parts if name == "t"), "")
    _recent(stamp, now)
    expected = _hmac(secret, f"{stamp}.".encode() + arrival.body, "sha256").hex()
    _any_same([value for name, _, value in parts if name == "v1"], expected, "stripe-signature")


def _slack(arrival: Arrival, verify: Verify, secret: str, now: datetime) -> None:
    stamp = _header(arrival, "x-slack-request-timestamp")
    _recent(stamp, now)
    expected = "v0=" + _hmac(secret, f"v0:{stamp}:".encode() + arrival.body, "sha256").hex()
    _same(_header(arrival, "x-slack-signature"), expected, "x-slack-signature")


def _any_hmac(arrival: Arrival, verify: Verify, secret: str, now: datetime) -> None:
    name = verify.header or ""
    given = _header(arrival, name)
    if not given.startswith(verify.prefix):
        raise Disbelieved(f'the header {name} does not begin with "{verify.prefix}"')
    digest = _hmac(secret, arrival.body, verify.algorithm)
    expected = digest.hex() if verify.encoding == "hex" else base64.b64encode(digest).decode()
    signature = given.removeprefix(verify.prefix)
    _same(signature.lower() if verify.encoding == "hex" else signature, expected, name)


def _token(arrival: Arrival, verify: Verify, secret: str, now: datetime) -> None:
    if verify.header is not None and verify.header != "authorization":
        _same(_header(arrival, verify.header), secret, verify.header)
        return
    scheme, _, token = _header(arrival, "authorization").partition(" ")
    if scheme.lower() != "bearer":
        raise Disbelieved("the header authorization must be: Bearer <token>")
    _same(token.strip(), secret, "authorization")


def _basic(arrival: Arrival, verify: Verify, secret: str, now: datetime) -> None:
    scheme, _, given = _header(arrival, "authorization").partition(" ")
    if scheme.lower() != "basic":
        raise Disbelieved("the header authorization must be: Basic <base64 of username:password>")
    expected = base64.b64encode(f"{verify.username}:{secret}".encode()).decode()
    _same(given.strip(), expected, "authorization")


_SCHEMES: dict[Scheme, Callable[[Arrival, Verify, str, datetime], None]] = {
    Scheme.STANDARD: _standard,
    Scheme.GITHUB: _github,
    Scheme.STRIPE: _stripe,
    Scheme.SLACK: _slack,
    Scheme.HMAC: _any_hmac,
    Scheme.TOKEN: _token,
    Scheme.BASIC: _basic,
}


def _header(arrival: Arrival, name: str) -> str:
    value = arrival.headers.get(name, "").strip()
    if not value:
        raise Disbelieved(f"the header {name} is missing")
    return value


def _recent(stamp: str, now: datetime) -> None:
    # Digits of ASCII only, and few: int() and timestamps accept more than a sender may write.
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        raise Disbelieved("the signed time is not a whole number of seconds since 1970")
    if abs(now.timestamp() - int(stamp)) > TOLERANCE.total_seconds():
        raise Disbelieved(f"the signed time is more than {TOLERANCE.total_seconds():g} s from now; is a clock wrong?")


def _hmac(secret: str, message: bytes, algorithm: str) -> bytes:
    return hmac.new(secret.encode(), message, getattr(hashlib, algorithm)).digest()


def _same(given: str, expected: str, header: str) -> None:
    _any_same([given], expected, header)


def _any_same(given: list[str], expected: str, header: str) -> None:
    if not any(hmac.compare_digest(one.encode(), expected.encode()) for one in given):
        raise Disbelieved(f"the header {header} does not match; check the secret on both sides")


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True
