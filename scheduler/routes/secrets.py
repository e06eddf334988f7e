"""Secrets of an app: written, never read back."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from dispatch.store.keys import ensure_app
from dispatch.store.vault import put_secret
from scheduler.auth import Scope
from scheduler.requests import read_body
from scheduler.routes.docs import PROBLEMS, AppName, SecretName, json_body
from scheduler.spine import spine_of
from scheduler.views import answer

router = APIRouter(prefix="/apps/{app}/secrets", tags=["secrets"], responses=PROBLEMS)


class SecretBody(BaseModel):
    """The secret itself."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"value": "whsec_bm90IGEgc2VjcmV0"}})

    value: str = Field(min_length=1, max_length=65_536)


class KeptSecret(BaseModel):
    """That it is kept."""

    app: str
    name: str


@router.put(
    "/{name}",
    summary="Keep a secret, encrypted; nothing shows it again",
    responses={200: {"model": KeptSecret, "description": "replaced"}, 201: {"model": KeptSecret, "description": "new"}},
    response_model=None,
    openapi_extra=json_body(SecretBody),
)
async def put(request: Request, app: AppName, name: SecretName) -> Response:
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.WRITE, app=app)
    body = await read_body(request, SecretBody)
    async with spine.store.write() as connection:
        await ensure_app(connection, app)
        new = await put_secret(connection, spine.vault, app=app, name=name, text=body.value)
    spine.targets.forget()
    return answer({"app": app, "name": name}, status=201 if new else 200)
