"""What a worker signs run tokens with: the keys that the API lists, or the key that it shares with its executors."""

from __future__ import annotations

from typing import Protocol

from dispatch.run_keys import RunKeys
from dispatch.run_tokens import Signer
from dispatch.store.session import Store
from dispatch.store.vault import Vault
from schemas.settings import Settings


class Signing(Protocol):
    """Gives what tokens are signed with."""

    async def signer(self) -> Signer:
        """Raises Unavailable when the keys can't be read here."""
        ...


class SharedSigning:
    """Signs with the key that worker and executors share."""

    def __init__(self, key: str) -> None:
        self._signer = Signer(key)

    async def signer(self) -> Signer:
        return self._signer


class StoredSigning:
    """Signs with the newest key in SQL, which is read when the first token is wanted."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._keys: RunKeys | None = None

    async def signer(self) -> Signer:
        if self._keys is None:
            self._keys = RunKeys(self._store, Vault.open(self._settings.home))
        return await self._keys.signer()


def open_signing(settings: Settings, store: Store) -> Signing:
    """Choose by FLO_EXECUTOR_KEY."""
    if settings.executor_key is not None:
        return SharedSigning(settings.executor_key.get_secret_value())
    return StoredSigning(settings, store)
