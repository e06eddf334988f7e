"""Short ways to make what tests need again and again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert

from dispatch.store.runs import NewRun
from dispatch.store.session import Store
from dispatch.store.tables import AppRow, FlowRow, FlowVersionRow
from schemas.run import Lane

NO_OP: dict[str, Any] = {
    "name": "no-op",
    "nodes": [{"id": "say", "node_type": "debug.log", "config": {"message": "hello"}}],
}


def new_run(**changes: Any) -> NewRun:
    """A run of the flow that `add_flow` pushes."""
    usual: dict[str, Any] = {
        "app": "shop",
        "flow": "greet",
        "version": 1,
        "event": "go",
        "lane": Lane.FLOW,
        "payload": {"name": "Ada"},
        "max_attempts": 3,
    }
    return NewRun(**{**usual, **changes})


async def add_flow(store: Store, document: dict[str, Any] | None = None) -> None:
    """Write app `shop` and version 1 of its flow `greet`, straight into SQL."""
    now = datetime.now(UTC)
    async with store.write() as connection:
        await connection.execute(insert(AppRow).values(name="shop", created_at=now, limits={}))
        await connection.execute(
            insert(FlowRow).values(app="shop", name="greet", latest_version=1, created_at=now, updated_at=now)
        )
        await connection.execute(
            insert(FlowVersionRow).values(
                app="shop", flow="greet", version=1, content_hash="0", document=document or NO_OP, created_at=now
            )
        )
