"""Workflows: list, create, read, delete. A workflow is a flow named by its id, with an event of that name."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta

from fastapi import APIRouter, Request
from sqlalchemy import RowMapping
from starlette.responses import Response

from dispatch.store.flows import list_flows, push_version, read_flow, retire_flow
from dispatch.store.history import read_documents
from dispatch.store.keys import ensure_app
from dispatch.store.triggers import put_event, read_event
from scheduler.auth import Scope
from scheduler.compat.flowengine.door import FlowEngineRoute, Visit, enter
from scheduler.compat.flowengine.values import workflow_of
from scheduler.modes import mode_of_app
from scheduler.requests import read_json
from scheduler.routes.docs import NAME
from scheduler.views import answer
from schemas.errors import Conflict, Invalid, NotFound, Problem
from schemas.event import EventKind
from schemas.flow import FlowDocument, canonical_json, content_hash
from schemas.json import JSONObject, JSONValue, loads
from schemas.validation import read_document
from schemas.wording import short

router = APIRouter(prefix="/api/workflows", route_class=FlowEngineRoute, include_in_schema=False)

#: Flows read in one statement.
_PAGE = 500
#: Longest id, as of every flow.
_LONGEST_ID = 200


@router.get("", response_model=None)
async def index(request: Request) -> Response:
    """List every workflow with the number of its nodes and connections."""
    visit = await enter(request, Scope.READ)
    listed: list[JSONValue] = []
    cursor: str | None = None
    async with visit.spine.store.read() as connection:
        while True:
            rows, cursor = await list_flows(connection, visit.app, cursor=cursor, limit=_PAGE)
            versions = {row["name"]: (row["app"], row["name"], row["latest_version"]) for row in rows}
            documents = await read_documents(connection, versions.values())
            listed += [_summary(name, documents[version]) for name, version in versions.items()]
            if cursor is None:
                return answer(listed)


@router.post("", response_model=None)
async def create(request: Request) -> Response:
    """Keep a workflow; one whose id is known becomes its newest version."""
    visit = await enter(request, Scope.WRITE)
    document = await _read(request, visit)
    name = document.id or str(uuid.uuid4())
    canonical: JSONObject = loads(canonical_json(document))
    async with visit.spine.store.write() as connection:
        await ensure_app(connection, visit.app)
        hashed = content_hash(document)
        await push_version(connection, app=visit.app, flow=name, document=canonical, content_hash=hashed)
        event = await read_event(connection, visit.app, name)
        if event is not None and (event["kind"] != EventKind.INVOKE or event["flow"] != name):
            raise Conflict(
                f'app "{visit.app}" has an event "{name}" that is not this workflow\'s; give the workflow another id'
            )
        await put_event(
            connection, app=visit.app, name=name, kind=EventKind.INVOKE, flow=name, version=None, config={}, path=None
        )
    visit.spine.targets.forget()
    return answer({"id": name, "message": "Workflow created successfully"}, status=201)


@router.get("/{workflow}", response_model=None)
async def read(request: Request, workflow: str) -> Response:
    """Give a workflow's definition, with typed configs."""
    row = await find_workflow(await enter(request, Scope.READ), workflow)
    return answer(workflow_of(row["document"], flow=workflow))


@router.delete("/{workflow}", response_model=None)
async def delete(request: Request, workflow: str) -> Response:
    """Retire a workflow: it is listed and started no more. Its runs stay."""
    visit = await enter(request, Scope.WRITE)
    await find_workflow(visit, workflow)
    async with visit.spine.store.write() as connection:
        await retire_flow(connection, visit.app, workflow)
    visit.spine.targets.forget()
    return answer({"message": "Workflow deleted successfully"})


async def find_workflow(visit: Visit, workflow: str) -> RowMapping:
    """Read a workflow that was not deleted. Raises NotFound in FlowEngine's words."""
    async with visit.spine.store.read() as connection:
        row = await read_flow(connection, visit.app, workflow)
    if row is None or row["retired_at"] is not None:
        raise NotFound(f"Workflow {workflow} not found")
    return row


async def _read(request: Request, visit: Visit) -> FlowDocument:
    raw = await read_json(request)
    limit = timedelta(seconds=visit.spine.settings.inline_http_max_duration)
    catalog = visit.spine.catalog.in_mode(await mode_of_app(visit.spine, visit.app))
    document, _ = read_document(raw, catalog=catalog, max_inline_http=limit)
    if document.id is not None and (len(document.id) > _LONGEST_ID or not re.fullmatch(NAME, document.id)):
        message = f'given {short(document.id)}; an id has letters, digits, ".", "_" and "-"'
        raise Invalid([Problem(path="id", message=message, fix="give it a UUID")], what="flow document")
    return document


def _summary(name: str, document: JSONObject) -> JSONObject:
    nodes, connections = document.get("nodes"), document.get("connections")
    return {
        "id": name,
        "name": document.get("name"),
        "description": document.get("description"),
        "nodes": len(nodes) if isinstance(nodes, list) else 0,
        "connections": len(connections) if isinstance(connections, list) else 0,
    }
