"""Poll tokens: a caller's right to follow one run, signed so that no request needs SQL to check it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import jwt

#: How long a run can be followed with the token that its start returned.
LIFETIME = timedelta(hours=24)

_AUDIENCE = "flo-poll"
_ALGORITHM = "HS256"


@dataclass(frozen=True, slots=True)
class PollRight:
    """What a poll token says."""

    run_id: str
    app: str


class PollTokens:
    """Signs and reads poll tokens. Every replica has the same secret (`server_secret(connection, "poll")`)."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def issue(self, run_id: str, *, app: str) -> str:
        expires = int((datetime.now(UTC) + LIFETIME).timestamp())
        claims = {"aud": _AUDIENCE, "run": run_id, "app": app, "exp": expires}
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM)

    def read(self, token: str) -> PollRight | None:
        """Check a token; None when it is not ours, altered or out of date."""
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                options={"require": ["exp", "aud", "run", "app"]},
            )
        except jwt.InvalidTokenError:
            return None
        return PollRight(str(claims["run"]), str(claims["app"]))
