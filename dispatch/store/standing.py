"""How an attempt stands that is executed elsewhere: whether its word still counts, and what became of its run."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from dispatch.claims import Claim
from dispatch.store.runs import runs
from schemas.run import RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A run as one of its attempts finds it."""

    status: RunStatus
    claim: Claim

    def is_held_by(self, attempt: int) -> bool:
        """Tell whether this attempt has the run: no other does, and it is not over."""
        return self.status is RunStatus.RUNNING and self.claim.attempt == attempt


async def read_standing(connection: AsyncConnection, run_id: str) -> Standing | None:
    """Read how a run stands; the payload is left where it is."""
    query = select(*_COLUMNS, runs.c.status).where(runs.c.id == run_id)
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        return None
    said = {column.name: row[column.name] for column in _COLUMNS if column.name != "id"}
    claim = Claim(run_id=row["id"], payload=None, **said)
    return Standing(status=RunStatus(row["status"]), claim=claim)


_COLUMNS = (
    runs.c.id,
    runs.c.attempt,
    runs.c.max_attempts,
    runs.c.app,
    runs.c.flow,
    runs.c.version,
    runs.c.event,
    runs.c.lane,
    runs.c.worker_group,
    runs.c.priority,
    runs.c.mode,
    runs.c.backend_config,
    runs.c.last_seq,
    runs.c.created_at,
    runs.c.cancel_reason,
    runs.c.concurrency_key,
    runs.c.node,
)
