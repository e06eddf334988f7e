"""API keys: make one for an app, list, revoke. Only an admin may."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from dispatch.store.keys import ApiKey, add_key, ensure_app, list_keys, make_key, revoke_key
from scheduler.auth import Scope
from scheduler.requests import read_body
from scheduler.routes.docs import NAME, PROBLEMS, AppFilter, json_body
from scheduler.spine import spine_of
from scheduler.starting import as_text
from scheduler.views import answer
from schemas.errors import Invalid, NotFound, Problem
from schemas.json import JSONObject

router = APIRouter(prefix="/keys", tags=["keys"], responses=PROBLEMS)


class KeyBody(BaseModel):
    """What a new key may do: bound to an app, or without one an admin key."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"app": "shop", "scopes": ["read", "invoke"]}}
    )

    app: str | None = Field(default=None, pattern=NAME, max_length=100)
    scopes: list[Scope] = Field(min_length=1, max_length=len(Scope))


class KeyView(BaseModel):
    """A key without the key."""

    id: str
    app: str | None
    scopes: list[Scope]
    created_at: datetime


class NewKey(KeyView):
    #: Shown this once; only its hash is kept.
    key: str


class KeyList(BaseModel):
    items: list[KeyView]
    next_cursor: None = None


@router.post(
    "",
    summary="Make a key; it is shown this once",
    status_code=201,
    responses={201: {"model": NewKey}},
    response_model=None,
    openapi_extra=json_body(KeyBody),
)
async def make(request: Request) -> Response:
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.ADMIN)
    body = await read_body(request, KeyBody)
    if (body.app is None) != (Scope.ADMIN in body.scopes):
        message = 'the scope "admin" is for keys without an app, and such keys have no other scope'
        fix = 'give {"scopes": ["admin"]}, or name the app and leave "admin" out'
        raise Invalid([Problem(path="scopes", message=message, fix=fix)], what="request body")
    key = make_key()
    async with spine.store.write() as connection:
        if body.app is not None:
            await ensure_app(connection, body.app)
        made = await add_key(connection, key, app=body.app, scopes=sorted(set(body.scopes)))
    return answer({**_view(made), "key": key}, status=201)


@router.get("", summary="List the keys in force", responses={200: {"model": KeyList}}, response_model=None)
async def index(request: Request, app: AppFilter = None) -> Response:
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.ADMIN)
    async with spine.store.read() as connection:
        keys = await list_keys(connection, app=app)
    return answer({"items": [_view(key) for key in keys], "next_cursor": None})


@router.delete(
    "/{key_id}", summary="Revoke a key: refused everywhere within two seconds", status_code=204, response_model=None
)
async def revoke(request: Request, key_id: Annotated[str, Path(pattern=r"^[A-Za-z0-9_]+$", max_length=40)]) -> Response:
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.ADMIN)
    async with spine.store.write() as connection:
        revoked = await revoke_key(connection, key_id)
    if not revoked:
        raise NotFound(f"no key in force has the id {key_id}; GET /api/v1/keys lists them")
    spine.gate.forget()
    return Response(status_code=204)


def _view(key: ApiKey) -> JSONObject:
    return {"id": key.id, "app": key.app, "scopes": list(key.scopes), "created_at": as_text(key.created_at)}
