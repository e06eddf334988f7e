"""Who is asking, and what they may do: API keys, and the admin key that a server starts with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import structlog
from starlette.requests import HTTPConnection

from dispatch.store.keys import ApiKey, digest_of, find_key, has_admin_key, make_key, set_bootstrap_key
from dispatch.store.session import Store
from dispatch.store.vault import read_or_create
from scheduler.brief import Brief
from scheduler.problem import Unauthenticated
from schemas.errors import Refused
from schemas.settings import Settings

log = structlog.get_logger()

#: How long a key that was checked is trusted without asking SQL: a revocation takes effect within this time.
TRUSTED = timedelta(seconds=2)

#: FLO_API_KEY shorter than this is worth a warning.
_SHORT_KEY = 16


class Scope(StrEnum):
    """What a key may do in its app."""

    #: See flows, events, runs.
    READ = "read"
    #: Push flows; create, change and remove events and secrets.
    WRITE = "write"
    #: Start, cancel, retry and redrive runs.
    INVOKE = "invoke"
    #: All of it, in every app, and making keys.
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request, as their key says."""

    key_id: str
    #: None for an admin, who acts for every app.
    app: str | None
    scopes: frozenset[str]

    @property
    def admin(self) -> bool:
        return self.app is None and Scope.ADMIN in self.scopes

    def require(self, scope: Scope, *, app: str | None = None) -> None:
        """Raise Refused unless this caller may do it, in this app.

        The answer about another app is the same whether that app exists or not.
        """
        if self.admin:
            return
        if app is not None and app != self.app:
            raise Refused(f'this key belongs to the app "{self.app}" and can\'t act on "{app}"; use a key of that app')
        if scope not in self.scopes:
            raise Refused(
                f'this needs a key with the scope "{scope}"; this one has: {", ".join(sorted(self.scopes)) or "none"}'
            )

    def sees(self, app: str) -> bool:
        """Tell whether things of this app exist at all for the caller."""
        return self.admin or self.app == app


class Gate:
    """Turns a request's key into its caller."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys: Brief[str, ApiKey | None] = Brief(self._find, lasts=TRUSTED)

    async def admit(self, connection: HTTPConnection) -> Caller:
        """Tell who is asking. Raises Unauthenticated without a valid `Authorization: Bearer <key>`."""
        return await self.admit_key(bearer_of(connection))

    async def admit_key(self, key: str | None) -> Caller:
        challenge = {"WWW-Authenticate": 'Bearer realm="flo"'}
        if key is None:
            raise Unauthenticated(
                "the request carries no key; send the header Authorization: Bearer <key> "
                "(the server's admin key is in $FLO_HOME/api_key)",
                headers=challenge,
            )
        known = await self._keys.get(digest_of(key))
        if known is None:
            raise Unauthenticated(
                "this key is not known here, or was revoked; check it for a typing error, or "
                "ask an admin for a new one (POST /api/v1/keys)",
                headers=challenge,
            )
        return Caller(known.id, known.app, frozenset(known.scopes))

    def forget(self) -> None:
        """Trust nothing remembered: a key has just been revoked here."""
        self._keys.forget()

    async def _find(self, digest: str) -> ApiKey | None:
        async with self._store.read() as connection:
            return await find_key(connection, digest)


def bearer_of(connection: HTTPConnection) -> str | None:
    """Read the token of an `Authorization: Bearer` header."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


async def ensure_admin_key(store: Store, settings: Settings) -> None:
    """See to it that somebody can get in: with FLO_API_KEY, or else with the key in `$FLO_HOME/api_key`.

    A database that is shared (FLO_DATABASE_URL) and already has an admin key gets no second one from this home.
    """
    given = settings.api_key.get_secret_value().strip() if settings.api_key is not None else ""
    path = settings.home / "api_key"
    if given:
        if len(given) < _SHORT_KEY:
            log.warning("auth.weak_key", characters=len(given), fix="choose a longer FLO_API_KEY")
        key = given
    elif settings.database_url and not path.exists():
        async with store.read() as connection:
            if await has_admin_key(connection):
                return
        key = read_or_create(path, make_key())
    else:
        key = read_or_create(path, make_key())
    async with store.write() as connection:
        await set_bootstrap_key(connection, key)
