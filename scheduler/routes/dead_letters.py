"""Dead letters: runs that lost their worker too often, and how to give them another chance."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from dispatch.store.runs import redrive
from scheduler.auth import Scope
from scheduler.routes.docs import PROBLEMS, AppFilter, Cursor, Limit, RunId, Started
from scheduler.routes.invoke import answer_started
from scheduler.routes.runs import RunPage, find_run, page_of_runs
from scheduler.spine import spine_of
from schemas.errors import NotFound
from schemas.run import RunStatus

router = APIRouter(prefix="/dead-letters", tags=["dead letters"], responses=PROBLEMS)


@router.get(
    "", summary="List dead-lettered runs, newest first", responses={200: {"model": RunPage}}, response_model=None
)
async def index(request: Request, app: AppFilter = None, limit: Limit = 50, cursor: Cursor = None) -> Response:
    spine = spine_of(request)
    caller = await spine.gate.admit(request)
    return await page_of_runs(
        spine, caller, app=app, status=RunStatus.DEAD, lane=None, event=None, limit=limit, cursor=cursor
    )


@router.post(
    "/{run}/redrive",
    summary="Give a dead-lettered run a fresh set of attempts",
    status_code=202,
    responses={202: {"model": Started}},
    response_model=None,
)
async def redrive_one(request: Request, run: RunId) -> Response:
    spine = spine_of(request)
    caller = await spine.gate.admit(request)
    row = await find_run(spine, caller, run, Scope.INVOKE)
    async with spine.store.write() as connection:
        job = await redrive(connection, run)
    if job is None:
        raise NotFound(f"there is no run {run}")
    spine.publisher.publish_soon([job])
    return answer_started(spine, run, app=row["app"], mode=row["mode"])
