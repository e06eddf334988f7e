"""Messages that no worker could read, kept as they came, until someone has looked at them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from sqlalchemy import RowMapping, delete, select
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncConnection

from dispatch.store.runs import changed
from dispatch.store.tables import DeadMessageRow
from dispatch.store.upsert import insert_or

dead_messages = cast(SqlTable, DeadMessageRow.__table__)

#: What is kept of a message, in bytes: enough to see what it is. Flo's own are a few hundred bytes long.
LONGEST = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadMessage:
    """A message that is not a job."""

    #: `redis`, `sqs` or `kafka`.
    carrier: str
    lane: str
    body: bytes
    reason: str

    @property
    def id(self) -> str:
        """Name it by what it is: delivered twice, it is kept once."""
        said = b"\0".join((self.carrier.encode(), self.lane.encode(), self.body))
        return f"msg_{hashlib.sha256(said).hexdigest()[:32]}"


async def keep_message(connection: AsyncConnection, message: DeadMessage) -> None:
    """Keep a message; one that is kept already stays as it is."""
    row = {
        "id": message.id,
        "carrier": message.carrier,
        "lane": message.lane[:200],
        "body": message.body[:LONGEST],
        "size": len(message.body),
        "reason": message.reason.replace("\0", "\ufffd")[:2000],
        "received_at": datetime.now(UTC),
    }
    await connection.execute(insert_or(connection, dead_messages).values(row).on_conflict_do_nothing())


async def list_messages(
    connection: AsyncConnection, *, after: str | None, limit: int
) -> tuple[Sequence[RowMapping], str | None]:
    """List messages by id; the cursor is the id of the last one shown, or anything that sorts before all of them."""
    query = select(dead_messages).order_by(dead_messages.c.id).limit(limit + 1)
    if after is not None:
        query = query.where(dead_messages.c.id > after)
    rows = (await connection.execute(query)).mappings().all()
    return rows[:limit], rows[limit - 1]["id"] if len(rows) > limit else None


async def read_message(connection: AsyncConnection, message_id: str) -> RowMapping | None:
    query = select(dead_messages).where(dead_messages.c.id == message_id)
    return (await connection.execute(query)).mappings().one_or_none()


async def discard_message(connection: AsyncConnection, message_id: str) -> bool:
    """Forget a message; False when there is none by this id."""
    return changed(await connection.execute(delete(dead_messages).where(dead_messages.c.id == message_id))) > 0
