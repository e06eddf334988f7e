"""Whom an executor believes: the bearers of run tokens, which it checks by the API's JWKS or by a shared key."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import Protocol

import httpx
import jwt
import structlog

from dispatch.run_tokens import Right, key_id_of, read_with_key, read_with_secret
from schemas.errors import SettingsError, Unavailable
from schemas.settings import Settings

log = structlog.get_logger()

JWKS_PATH = "/api/v1/execution/.well-known/jwks.json"
#: Seconds before a key that is not listed is looked for again: a stranger must not have us ask the API for each word.
_ASK_EVERY = 5.0
_PATIENCE = 5.0


class Trust(Protocol):
    """Reads tokens."""

    async def read(self, token: str) -> Right | None:
        """Give the right that a token stands for; None when it is not good. Raises Unavailable."""
        ...


class SharedKey:
    """For closed networks: both sides were given the same key."""

    def __init__(self, key: str) -> None:
        self._key = key

    async def read(self, token: str) -> Right | None:
        return read_with_secret(token, self._key)


class ListedKeys:
    """Knows the public keys that an API lists, and looks again when a token names another."""

    def __init__(self, api_url: str, http: httpx.AsyncClient) -> None:
        self._url = api_url.rstrip("/") + JWKS_PATH
        self._http = http
        self._keys: dict[str, jwt.PyJWK] = {}
        self._asked_at = float("-inf")

    async def read(self, token: str) -> Right | None:
        kid = key_id_of(token)
        if kid is None:
            return None
        if kid not in self._keys and time.monotonic() - self._asked_at > _ASK_EVERY:
            await self._ask()
        key = self._keys.get(kid)
        return None if key is None else read_with_key(token, key)

    async def _ask(self) -> None:
        try:
            answer = await self._http.get(self._url, timeout=_PATIENCE)
            answer.raise_for_status()
            self._keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(answer.json()).keys if key.key_id}
        except (httpx.HTTPError, ValueError, jwt.PyJWTError) as error:
            raise Unavailable(
                f"the keys of run tokens can't be read from {self._url} ({error or type(error).__name__}); have "
                "FLO_URL name the API"
            ) from error
        self._asked_at = time.monotonic()


def open_trust(settings: Settings, http: httpx.AsyncClient, *, host: str) -> Trust | None:
    """Choose how tokens are checked; None, for whoever listens to its own machine alone, takes orders without any.

    Raises SettingsError for an executor that others could reach, and that could tell nobody from anybody.
    """
    if settings.executor_key is not None:
        return SharedKey(settings.executor_key.get_secret_value())
    if settings.api_url is not None:
        return ListedKeys(settings.api_url, http)
    if not _is_loopback(host):
        raise SettingsError(
            f"an executor at {host} would run what anybody sends it: set FLO_URL to the API, whose keys sign run "
            "tokens, or FLO_EXECUTOR_KEY to a secret that the workers have too; without either, use --host 127.0.0.1"
        )
    log.warning("executor.trusts_anyone", who="every program on this machine", fix="set FLO_URL or FLO_EXECUTOR_KEY")
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
