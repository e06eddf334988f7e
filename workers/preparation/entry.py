"""How a preparation is written into the cache, and read from it."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson

from schemas.outcome import ErrorKind
from workers.preparation.recipe import Flaw, Lasts, Preparation, Prepared


def to_bytes(preparation: Preparation, until: datetime | None) -> bytes:
    """Write a preparation, and until when it is to be believed."""
    ends = until.timestamp() if until is not None else None
    return orjson.dumps({"until": ends, "is": type(preparation).__name__, **_fields(preparation)})


def from_bytes(body: bytes, now: datetime) -> tuple[Preparation, datetime | None] | None:
    """Read what `to_bytes` wrote; None when it is over, or nothing of ours."""
    try:
        content = orjson.loads(body)
        until = None if content["until"] is None else datetime.fromtimestamp(content["until"], UTC)
        if until is not None and until < now:
            return None
        if content["is"] == Prepared.__name__:
            return Prepared(code=content["code"], source_map=content["source_map"]), until
        flaw = Flaw(
            kind=ErrorKind(content["kind"]),
            message=content["message"],
            line=content["line"],
            column=content["column"],
            lasts=Lasts(content["lasts"]),
        )
    except (ValueError, LookupError, TypeError):
        return None
    return flaw, until


def _fields(preparation: Preparation) -> dict[str, str | int | None]:
    match preparation:
        case Prepared():
            return {"code": preparation.code, "source_map": preparation.source_map}
        case Flaw():
            return {
                "kind": preparation.kind,
                "message": preparation.message,
                "line": preparation.line,
                "column": preparation.column,
                "lasts": preparation.lasts,
            }
