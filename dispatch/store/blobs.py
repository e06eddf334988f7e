"""Large values, kept beside the rows that show them: each once per app, by the SHA-256 of its content.

A value is written by `Packing`, which leaves a reference in the row when its JSON is longer than the threshold, and
read by `unpacked`, which puts it back. Nobody else sees a reference: its text is not JSON, so that no user can forge
one, and the digest counts the app in, so that no app can name another's.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import Connection, RowMapping, bindparam, delete, exists, select
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncConnection

from dispatch.store.tables import BlobRef, BlobRow, RunBlobRow, Written
from dispatch.store.upsert import insert_or
from schemas.json import JSONValue, dumps, loads

blobs = cast(SqlTable, BlobRow.__table__)
run_blobs = cast(SqlTable, RunBlobRow.__table__)

#: Compression is kept if it saves at least a tenth.
_WORTH_IT = 0.9


class Packing:
    """Decides, value by value, what stays in its row; then writes what does not, in the same transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._threshold: int | None = connection.get_execution_options().get("flo_blob_threshold")
        self._blobs: dict[str, bytes] = {}
        self._references: set[tuple[str, str]] = set()

    def pack(self, value: JSONValue, *, app: str, run_id: str) -> Written | BlobRef | None:
        """Give what is to be bound in place of the value; it is made JSON here, and only once."""
        if value is None:
            return None
        text = dumps(value)
        # Bytes are counted only if there could be too many: no character takes more than four.
        if self._threshold is None or len(text) * 4 <= self._threshold:
            return Written(text)
        body = text.encode()
        if len(body) <= self._threshold:
            return Written(text)
        digest = hashlib.sha256(app.encode() + b"\0" + body).hexdigest()
        self._blobs[digest] = body
        self._references.add((run_id, digest))
        return BlobRef(digest)

    def write(self) -> None:
        """Write the blobs that rows of this transaction refer to."""
        if not self._blobs:
            return
        now = datetime.now(UTC)
        for digest, body in sorted(self._blobs.items()):
            row = {"digest": digest, "size": len(body), "touched_at": now, **_squeezed(body)}
            # Touched, and so locked: a blob that is about to be deleted with its last run is written anew instead.
            put = insert_or(self._connection, blobs).values(row)
            self._connection.execute(put.on_conflict_do_update(index_elements=["digest"], set_={"touched_at": now}))
        references = [{"run_id": run_id, "digest": digest} for run_id, digest in sorted(self._references)]
        self._connection.execute(insert_or(self._connection, run_blobs).on_conflict_do_nothing(), references)


async def unpacked(connection: AsyncConnection, rows: Sequence[RowMapping]) -> Sequence[Mapping[Any, Any]]:
    """Put large values back into rows; without any, the rows are given back as they are."""
    if not any(isinstance(value, BlobRef) for row in rows for value in row.values()):
        return rows
    return await connection.run_sync(unpack, rows)


def unpack(connection: Connection, rows: Sequence[Mapping[Any, Any]]) -> Sequence[Mapping[Any, Any]]:
    """Put large values back into rows."""
    wanted = {value.digest for row in rows for value in row.values() if isinstance(value, BlobRef)}
    if not wanted:
        return rows
    found = {row.digest: _value(row) for row in connection.execute(_READ, {"digests": list(wanted)})}
    return [
        {name: found[value.digest] if isinstance(value, BlobRef) else value for name, value in row.items()}
        for row in rows
    ]


def forget_blobs(connection: Connection, run_ids: Iterable[str], *, before: datetime) -> None:
    """Let go of runs' large values, in the transaction that deletes the runs; each goes with the last that has it.

    A value that was touched since `before` belongs to a younger run, perhaps to one that is not committed yet.
    """
    mine = run_blobs.c.run_id.in_(list(run_ids))
    digests = list(connection.scalars(select(run_blobs.c.digest).where(mine).distinct()))
    if not digests:
        return
    connection.execute(delete(run_blobs).where(mine))
    unused = ~exists().where(run_blobs.c.digest == blobs.c.digest)
    connection.execute(delete(blobs).where(blobs.c.digest.in_(digests), blobs.c.touched_at < before, unused))


def _squeezed(body: bytes) -> dict[str, Any]:
    small = zlib.compress(body, level=1)
    return (
        {"body": small, "deflated": True} if len(small) < len(body) * _WORTH_IT else {"body": body, "deflated": False}
    )


def _value(row: Any) -> JSONValue:
    body = bytes(row.body)
    return cast(JSONValue, loads(zlib.decompress(body) if row.deflated else body))


_READ = select(blobs).where(blobs.c.digest.in_(bindparam("digests", expanding=True)))
