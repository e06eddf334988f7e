"""What an app is allowed. Only an admin may see or change it: limits are the operator's word."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from dispatch.store.keys import ensure_app
from dispatch.store.limits import put_limits, read_limits
from scheduler.auth import Scope
from scheduler.requests import read_body
from scheduler.routes.docs import PROBLEMS, AppName, json_body
from scheduler.spine import spine_of
from scheduler.starting import check_modes
from scheduler.views import answer
from schemas.app import AppLimits
from schemas.errors import NotFound

router = APIRouter(prefix="/apps/{app}/limits", tags=["apps"], responses=PROBLEMS)


@router.get("", summary="Read an app's limits", responses={200: {"model": AppLimits}}, response_model=None)
async def read(request: Request, app: AppName) -> Response:
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.ADMIN)
    async with spine.store.read() as connection:
        limits = await read_limits(connection, app)
    if limits is None:
        raise NotFound(f'there is no app "{app}"; PUT its limits, or push a flow to it, to create it')
    return answer(limits.model_dump(mode="json"))


@router.put(
    "",
    summary="Replace an app's limits; a field left out means the server's default",
    responses={200: {"model": AppLimits}},
    response_model=None,
    openapi_extra=json_body(AppLimits),
)
async def put(request: Request, app: AppName) -> Response:
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.ADMIN)
    limits = await read_body(request, AppLimits)
    check_modes(limits)
    async with spine.store.write() as connection:
        await ensure_app(connection, app)
        await put_limits(connection, app, limits)
    spine.targets.forget()
    return answer(limits.model_dump(mode="json"))
