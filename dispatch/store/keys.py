"""Apps, the API keys that act for them, and the secrets that all replicas of the server share."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from sqlalchemy import RowMapping, select, update
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncConnection

from dispatch.store.runs import changed
from dispatch.store.tables import AppRow, KeyRow, ServerSecretRow
from dispatch.store.upsert import insert_or
from schemas.errors import SettingsError
from schemas.ids import new_id

apps = cast(SqlTable, AppRow.__table__)
keys = cast(SqlTable, KeyRow.__table__)
server_secrets = cast(SqlTable, ServerSecretRow.__table__)

#: The one key that a server makes, or is given, when it starts.
BOOTSTRAP = "key_bootstrap"

_ADMIN = ("admin",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as SQL knows it: what it may do, not what it is."""

    id: str
    #: None for an admin key, which acts for every app.
    app: str | None
    scopes: tuple[str, ...]
    created_at: datetime


def make_key() -> str:
    """Make a new key: 256 random bits behind a prefix that secret scanners can look for."""
    return f"flo_{secrets.token_urlsafe(32)}"


def digest_of(key: str) -> str:
    """Give what is stored of a key. It has 256 random bits, so a fast hash without salt is enough."""
    return hashlib.sha256(key.encode()).hexdigest()


async def ensure_app(connection: AsyncConnection, app: str) -> None:
    """Create the app unless it is there."""
    row = {"name": app, "created_at": datetime.now(UTC), "limits": {}}
    await connection.execute(insert_or(connection, apps).values(row).on_conflict_do_nothing())


async def find_key(connection: AsyncConnection, digest: str) -> ApiKey | None:
    """Find a key that is not revoked."""
    query = select(keys).where(keys.c.digest == digest, keys.c.revoked_at.is_(None))
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else _key(row)


async def add_key(connection: AsyncConnection, key: str, *, app: str | None, scopes: Sequence[str]) -> ApiKey:
    """Keep a new key's digest."""
    made = ApiKey(id=new_id("key"), app=app, scopes=tuple(scopes), created_at=datetime.now(UTC))
    await connection.execute(keys.insert().values(_row(made, key)))
    return made


async def set_bootstrap_key(connection: AsyncConnection, key: str) -> None:
    """Make this the server's own admin key; the one before it stops working.

    Raises SettingsError when it is a key that was made for an app, or that was revoked.
    """
    digest = digest_of(key)
    same = (await connection.execute(select(keys).where(keys.c.digest == digest))).mappings().one_or_none()
    if same is not None:
        if same["revoked_at"] is None and same["app"] is None:
            return
        raise SettingsError("FLO_API_KEY is a key that was revoked or belongs to an app; choose another")
    made = ApiKey(id=BOOTSTRAP, app=None, scopes=_ADMIN, created_at=datetime.now(UTC))
    row = _row(made, key)
    await connection.execute(
        insert_or(connection, keys)
        .values(row)
        .on_conflict_do_update(index_elements=["id"], set_={"digest": digest, "created_at": made.created_at})
    )


async def has_admin_key(connection: AsyncConnection) -> bool:
    query = select(keys.c.id).where(keys.c.app.is_(None), keys.c.revoked_at.is_(None)).limit(1)
    return await connection.scalar(query) is not None


async def list_keys(connection: AsyncConnection, *, app: str | None) -> list[ApiKey]:
    """List the keys in force, newest first; of one app, or all."""
    query = select(keys).where(keys.c.revoked_at.is_(None)).order_by(keys.c.id.desc())
    if app is not None:
        query = query.where(keys.c.app == app)
    return [_key(row) for row in (await connection.execute(query)).mappings()]


async def revoke_key(connection: AsyncConnection, key_id: str) -> bool:
    """Take a key out of force; False when there is none in force by this id."""
    query = update(keys).where(keys.c.id == key_id, keys.c.revoked_at.is_(None)).values(revoked_at=datetime.now(UTC))
    return changed(await connection.execute(query)) > 0


async def server_secret(connection: AsyncConnection, name: str) -> bytes:
    """Read a secret that every replica shares; the first to ask makes it."""
    row = {"name": name, "value": secrets.token_bytes(32), "created_at": datetime.now(UTC)}
    await connection.execute(insert_or(connection, server_secrets).values(row).on_conflict_do_nothing())
    value = await connection.scalar(select(server_secrets.c.value).where(server_secrets.c.name == name))
    return bytes(value or b"")


def _row(key: ApiKey, text: str) -> dict[str, object]:
    return {
        "id": key.id,
        "digest": digest_of(text),
        "app": key.app,
        "scopes": list(key.scopes),
        "created_at": key.created_at,
        "revoked_at": None,
    }


def _key(row: RowMapping) -> ApiKey:
    return ApiKey(id=row["id"], app=row["app"], scopes=tuple(row["scopes"]), created_at=row["created_at"])
