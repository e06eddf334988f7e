"""Run tokens: what a remote executor shows, and is shown, for one attempt at one run. No I/O.

ES256 with the keys of `run_keys.py` wherever SQL can be asked or the JWKS fetched; HS256 with a key that the operator
gives to both sides (FLO_EXECUTOR_KEY) where an executor can reach nothing of ours. A token always names its attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

#: Who a token is for: executors, and the call-backs of executors.
AUDIENCE = "flo-execution"
#: How long a worker's own token is good for; it makes a new one for each word.
HOLD_LIFETIME = timedelta(minutes=1)
#: How far two machines' clocks may be apart.
LEEWAY = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRight:
    """The right to execute one attempt, to ask after it and to tell of it."""

    run_id: str
    app: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRight:
    """The right of a worker to say which attempts it still holds."""

    worker: str


Right: TypeAlias = RunRight | HoldRight


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs tokens: with a private key and its `kid`, or with a shared secret."""

    key: EllipticCurvePrivateKey | str
    kid: str | None = None

    def run(self, right: RunRight, *, lasts: timedelta) -> str:
        """Give the token of one attempt, which must outlast it."""
        return self._sign({"run": right.run_id, "app": right.app, "attempt": right.attempt}, lasts)

    def hold(self, right: HoldRight) -> str:
        return self._sign({"worker": right.worker}, HOLD_LIFETIME)

    def _sign(self, claims: Mapping[str, object], lasts: timedelta) -> str:
        now = datetime.now(UTC)
        whole = {"aud": AUDIENCE, "iat": now, "exp": now + lasts, **claims}
        algorithm = "HS256" if isinstance(self.key, str) else "ES256"
        return jwt.encode(whole, self.key, algorithm=algorithm, headers={"kid": self.kid} if self.kid else None)


def key_id_of(token: str) -> str | None:
    """Read which key a token says that it was signed with; None when it names none, or is no token."""
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except jwt.InvalidTokenError:
        return None
    return kid if isinstance(kid, str) else None


def read_with_key(token: str, key: jwt.PyJWK) -> Right | None:
    """Check a token against a public key; None when it is not ours, altered or out of date."""
    return _read(token, key.key, "ES256")


def read_with_secret(token: str, secret: str) -> Right | None:
    """Check a token against the shared secret."""
    return _read(token, secret, "HS256")


def _read(token: str, key: Any, algorithm: str) -> Right | None:
    # One algorithm each, whatever the token says: else a public key could be taken for a shared secret (RFC 8725, 3.1).
    try:
        claims = jwt.decode(
            token, key, algorithms=[algorithm], audience=AUDIENCE, leeway=LEEWAY, options={"require": ["exp", "aud"]}
        )
    except jwt.InvalidTokenError:
        return None
    match claims:
        case {"run": str(run), "app": str(app), "attempt": int(attempt)}:
            return RunRight(run_id=run, app=app, attempt=attempt)
        case {"worker": str(worker)}:
            return HoldRight(worker=worker)
        case _:
            return None
