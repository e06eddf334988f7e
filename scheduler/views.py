"""Runs as the API shows them."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from dispatch.store.history import read_documents, read_histories
from dispatch.store.runs import RunRecord
from scheduler.starting import as_text
from schemas.flow import FlowDocument
from schemas.fold import nodes_from
from schemas.json import JSONObject, JSONValue, dumps
from schemas.run import Happening


def answer(value: JSONValue, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with JSON, written straight from values that were checked when they came in."""
    return Response(dumps(value), status, headers=headers, media_type="application/json")


async def run_views(connection: AsyncConnection, rows: Sequence[RunRecord]) -> list[JSONObject]:
    """Show runs with their nodes."""
    histories = await read_histories(connection, [row["id"] for row in rows])
    documents = await read_documents(connection, [(row["app"], row["flow"], row["version"]) for row in rows])
    known = {version: _read(document) for version, document in documents.items()}
    return [_run_view(row, known.get((row["app"], row["flow"], row["version"])), histories[row["id"]]) for row in rows]


def _read(document: JSONObject) -> FlowDocument | None:
    try:
        return FlowDocument.model_validate(document)
    except ValidationError:  # kept by another version of Flo: its run is shown without nodes
        return None


def _run_view(row: RunRecord, document: FlowDocument | None, happenings: Sequence[Happening]) -> JSONObject:
    nodes = [] if document is None else nodes_from(document, happenings)
    # Of a run that another one has started; one that is a single node of its flow has no others.
    caller: JSONObject = {} if row["parent_run"] is None else {"parent_run": row["parent_run"]}
    if row["node"] is not None:
        nodes = [node for node in nodes if node.id == row["node"]]
        caller = {**caller, "node": row["node"]}
    # Said only while it is so.
    waiting: JSONObject = (
        {"waiting_for": row["blocked_by"]} if row["status"] == "queued" and row["blocked_by"] is not None else {}
    )
    if row["status"] == "waiting":
        waiting = {"waits": next((said.data["waits"] for said in reversed(happenings) if "waits" in said.data), [])}
    return {
        "run_id": row["id"],
        "app": row["app"],
        "flow": row["flow"],
        "version": row["version"],
        "event": row["event"],
        "lane": row["lane"],
        "status": row["status"],
        "attempt": row["attempt"],
        "executor": row["executor"],
        "payload": row["payload"],
        "result": row["result"],
        "error": row["error"],
        "created_at": as_text(row["created_at"]),
        "started_at": as_text(row["started_at"]),
        "finished_at": as_text(row["finished_at"]),
        "nodes": [node.model_dump(mode="json") for node in nodes],
        **caller,
        **waiting,
    }
