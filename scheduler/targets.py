"""What an event starts, remembered for a second, so that a busy event costs no SQL per call."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from dispatch.store.flows import has_version
from dispatch.store.session import Store
from dispatch.store.triggers import Target, find_webhooks, read_target
from dispatch.store.vault import Vault, read_secret
from scheduler.brief import Brief
from scheduler.event_config import WebhookConfig, unsealed

#: How long a change made through another replica may go unseen here. Changes made through this one are seen at once.
REMEMBERED = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook event, ready to check requests."""

    target: Target
    config: WebhookConfig
    #: None when the scheme needs none, or when `secret_ref` names a secret that is not there (any more).
    secret: str | None


def secret_label(app: str, event: str) -> str:
    """Say whose an event's sealed secret is."""
    return f"event-secret:{app}/{event}"


class Targets:
    """One process's memory of events and versions."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        self._targets: Brief[tuple[str, str], Target | None] = Brief(self._read_target, lasts=REMEMBERED)
        self._hooks: Brief[tuple[str, str], list[Hook]] = Brief(self._read_hooks, lasts=REMEMBERED)
        self._versions: Brief[tuple[str, str, int], bool] = Brief(self._read_version, lasts=REMEMBERED)

    async def of_event(self, app: str, event: str) -> Target | None:
        return await self._targets.get((app, event))

    async def of_path(self, app: str, path: str) -> list[Hook]:
        """Find the webhooks that listen on a path, by name."""
        return await self._hooks.get((app, path))

    async def has_version(self, app: str, flow: str, version: int) -> bool:
        return await self._versions.get((app, flow, version))

    def forget(self) -> None:
        """Look everything up anew: something has just been changed here."""
        self._targets.forget()
        self._hooks.forget()
        self._versions.forget()

    async def _read_target(self, key: tuple[str, str]) -> Target | None:
        async with self._store.read() as connection:
            return await read_target(connection, *key)

    async def _read_version(self, key: tuple[str, str, int]) -> bool:
        async with self._store.read() as connection:
            return await has_version(connection, *key)

    async def _read_hooks(self, key: tuple[str, str]) -> list[Hook]:
        app, path = key
        hooks = []
        async with self._store.read() as connection:
            for target in await find_webhooks(connection, app, path):
                config = WebhookConfig.model_validate(target.config)
                secret = unsealed(config.verify, vault=self._vault, label=secret_label(app, target.event))
                if config.verify.secret_ref is not None:
                    secret = await read_secret(connection, self._vault, app=app, name=config.verify.secret_ref)
                hooks.append(Hook(target, config, secret))
        return hooks
