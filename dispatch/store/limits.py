"""What an app's operator allows it, as claims, the API and the workers read it."""

from __future__ import annotations

from sqlalchemy import Connection, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from dispatch.store.gates import apps, open_gates
from dispatch.store.line import pass_on
from schemas.app import AppLimits


async def read_limits(connection: AsyncConnection, app: str) -> AppLimits | None:
    """Read an app's limits; None when there is no such app."""
    row = (await connection.execute(select(apps.c.limits).where(apps.c.name == app))).one_or_none()
    return None if row is None else AppLimits.model_validate(row.limits or {})


async def put_limits(connection: AsyncConnection, app: str, limits: AppLimits) -> None:
    """Replace an app's limits. Every later claim goes by them, and whoever may start now is called.

    The app must exist. Runs under way are never stopped by a limit that has become smaller.
    """
    await connection.run_sync(_put, app, limits)


def _put(connection: Connection, app: str, limits: AppLimits) -> None:
    connection.execute(
        update(apps)
        .where(apps.c.name == app)
        .values(
            limits=limits.model_dump(mode="json", exclude_defaults=True),
            gated=limits.max_concurrency is not None or limits.rate_limit is not None,
            key_concurrency=limits.key_concurrency,
        )
    )
    (gate,) = open_gates(connection, ended=[(app, None)], always=True)
    pass_on(connection, gate, whole=True, anew=True)
