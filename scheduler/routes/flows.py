"""Flows: push, check, read, list, retire."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from sqlalchemy import RowMapping
from starlette.responses import Response

from dispatch.store.flows import list_flows, push_version, read_flow, retire_flow
from dispatch.store.keys import ensure_app
from scheduler.auth import Scope
from scheduler.modes import mode_of_app
from scheduler.pods import lacks_resources
from scheduler.problem import ProblemItem
from scheduler.requests import LARGE, read_json
from scheduler.routes.docs import PROBLEMS, AppName, Cursor, FlowName, Limit, Page, json_body
from scheduler.spine import Spine, spine_of
from scheduler.starting import as_text
from scheduler.views import answer
from schemas.errors import Invalid, NotFound, Problem
from schemas.flow import FlowDocument, canonical_json, content_hash
from schemas.json import JSONObject, JSONValue, loads
from schemas.validation import read_document
from schemas.wording import did_you_mean

router = APIRouter(prefix="/apps/{app}/flows", tags=["flows"], responses=PROBLEMS)

_EXAMPLE = {
    "name": "hello",
    "nodes": [
        {
            "id": "greet",
            "node_type": "code.javascript",
            "config": {"code": "export default ({name}) => ({text: `hello ${name}`})"},
        }
    ],
}


class PushedFlow(BaseModel):
    """The version that a push led to."""

    app: str
    flow: str
    version: int
    created: bool
    content_hash: str
    #: What was assumed while the document was read.
    notes: list[ProblemItem]


class CheckedFlow(BaseModel):
    """A document without mistakes."""

    valid: bool
    content_hash: str
    notes: list[ProblemItem]


class FlowSummary(BaseModel):
    """A flow in a list."""

    app: str
    flow: str
    latest_version: int
    created_at: datetime
    updated_at: datetime
    retired_at: datetime | None


class FlowPage(Page):
    items: list[FlowSummary]


class FlowView(FlowSummary):
    """A flow, and one version of it."""

    version: int
    content_hash: str
    pushed_at: datetime
    document: dict[str, JSONValue]


@router.put(
    "/{flow}",
    summary="Check a flow and push it as a new version",
    responses={
        200: {"model": PushedFlow, "description": "the newest version has this content already"},
        201: {"model": PushedFlow, "description": "a new version"},
    },
    response_model=None,
    openapi_extra=json_body(None, example=_EXAMPLE),
)
async def push(request: Request, app: AppName, flow: FlowName) -> Response:
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.WRITE, app=app)
    document, notes = await _read(spine, request, app)
    content = content_hash(document)
    canonical: JSONObject = loads(canonical_json(document))
    async with spine.store.write() as connection:
        await ensure_app(connection, app)
        pushed = await push_version(connection, app=app, flow=flow, document=canonical, content_hash=content)
    spine.targets.forget()
    view: JSONObject = {
        "app": app,
        "flow": flow,
        "version": pushed.version,
        "created": pushed.created,
        "content_hash": content,
        "notes": _notes(notes),
    }
    return answer(view, status=201 if pushed.created else 200)


@router.post(
    "/{flow}/validate",
    summary="Check a flow without keeping it",
    responses={200: {"model": CheckedFlow}},
    response_model=None,
    openapi_extra=json_body(None, example=_EXAMPLE),
)
async def validate(request: Request, app: AppName, flow: FlowName) -> Response:
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.READ, app=app)
    document, notes = await _read(spine, request, app)
    return answer({"valid": True, "content_hash": content_hash(document), "notes": _notes(notes)})


@router.get("", summary="List flows", responses={200: {"model": FlowPage}}, response_model=None)
async def index(
    request: Request,
    app: AppName,
    limit: Limit = 100,
    cursor: Cursor = None,
    retired: Annotated[bool, Query(description="retired ones too")] = False,
) -> Response:
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.READ, app=app)
    async with spine.store.read() as connection:
        rows, next_cursor = await list_flows(connection, app, cursor=cursor, limit=limit, retired=retired)
    return answer({"items": [_summary(row) for row in rows], "next_cursor": next_cursor})


@router.get(
    "/{flow}",
    summary="Read a flow's newest, or one, version",
    responses={200: {"model": FlowView}},
    response_model=None,
)
async def read(
    request: Request, app: AppName, flow: FlowName, version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None
) -> Response:
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.READ, app=app)
    async with spine.store.read() as connection:
        row = await read_flow(connection, app, flow, version=version)
        if row is None and version is not None and await read_flow(connection, app, flow) is not None:
            raise NotFound(f'the flow "{flow}" has no version {version}; leave ?version= out for the newest')
    if row is None:
        raise await no_such_flow(spine, app, flow)
    return answer(
        {
            **_summary(row),
            "version": row["version"],
            "content_hash": row["content_hash"],
            "pushed_at": as_text(row["pushed_at"]),
            "document": row["document"],
        }
    )


@router.delete(
    "/{flow}", summary="Retire a flow: its history stays, nothing new starts", status_code=204, response_model=None
)
async def retire(request: Request, app: AppName, flow: FlowName) -> Response:
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.WRITE, app=app)
    async with spine.store.write() as connection:
        known = await retire_flow(connection, app, flow)
    if not known:
        raise await no_such_flow(spine, app, flow)
    spine.targets.forget()
    return Response(status_code=204)


async def no_such_flow(spine: Spine, app: str, flow: str) -> NotFound:
    """Word that a flow is not there, with the one that was probably meant."""
    async with spine.store.read() as connection:
        rows, _ = await list_flows(connection, app, cursor=None, limit=1000)
    fix = did_you_mean(flow, [row["name"] for row in rows]) or f"push it: PUT /api/v1/apps/{app}/flows/{flow}"
    return NotFound(f'app "{app}" has no flow "{flow}"; {fix}')


async def _read(spine: Spine, request: Request, app: str) -> tuple[FlowDocument, tuple[Problem, ...]]:
    raw = await read_json(request)
    limit = timedelta(seconds=spine.settings.inline_http_max_duration)
    catalog = spine.catalog.in_mode(await mode_of_app(spine, app))
    lacking = lacks_resources(spine.settings, raw)
    try:
        if len(await request.body()) > LARGE:
            read = await asyncio.to_thread(read_document, raw, catalog=catalog, max_inline_http=limit)
        else:
            read = read_document(raw, catalog=catalog, max_inline_http=limit)
    except Invalid as mistakes:
        raise Invalid([*mistakes.problems, *lacking], what="flow document") from None
    if lacking:
        raise Invalid(lacking, what="flow document")
    return read


def _summary(row: RowMapping) -> dict[str, Any]:
    return {
        "app": row["app"],
        "flow": row["name"],
        "latest_version": row["latest_version"],
        "created_at": as_text(row["created_at"]),
        "updated_at": as_text(row["updated_at"]),
        "retired_at": as_text(row["retired_at"]),
    }


def _notes(notes: tuple[Problem, ...]) -> list[JSONValue]:
    return [{"path": note.path, "message": note.message, "fix": note.fix} for note in notes]
