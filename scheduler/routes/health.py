"""Health and figures, for machines that watch; open to whoever reaches the port, and without anything of a tenant's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from sqlalchemy import func, select, text
from starlette.responses import Response

from dispatch.store.runs import outbox, runs
from dispatch.store.session import is_outage
from scheduler.problem import RETRY_AFTER
from scheduler.spine import Spine, spine_of
from scheduler.views import answer
from schemas.errors import Unavailable

router = APIRouter(tags=["health"])

#: Seconds within which each part must answer.
_PATIENCE = 2.0

#: No key is asked for.
_OPEN: dict[str, Any] = {"security": []}

_LIVE = ("queued", "running", "waiting")


class Alive(BaseModel):
    """The process answers."""

    status: str


class Readiness(BaseModel):
    """Whether the parts behind the process answer too: `ok`, or what is wrong."""

    status: str
    database: str
    broker: str


@router.get(
    "/healthz",
    summary="Is the process alive?",
    responses={200: {"model": Alive}},
    response_model=None,
    openapi_extra=_OPEN,
)
async def healthz() -> Response:
    return answer({"status": "ok"})


@router.get(
    "/readyz",
    summary="Do the database and the broker answer?",
    responses={200: {"model": Readiness}, 503: {"model": Readiness}},
    response_model=None,
    openapi_extra=_OPEN,
)
async def readyz(request: Request) -> Response:
    spine = spine_of(request)
    database, broker = await asyncio.gather(_state(_ask_database(spine)), _state(spine.queue.ping()))
    ready = database == broker == "ok" and not spine.stopping.is_set()
    return answer(
        {"status": "ok" if ready else "unavailable", "database": database, "broker": broker},
        status=200 if ready else 503,
        headers=None if ready else {"Retry-After": str(RETRY_AFTER)},
    )


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_model=None,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    openapi_extra=_OPEN,
)
async def metrics(request: Request) -> Response:
    spine = spine_of(request)
    await _count(spine)
    return Response(spine.figures.as_text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _ask_database(spine: Spine) -> None:
    async with spine.store.read() as connection:
        await connection.execute(text("SELECT 1"))


async def _state(asked: Awaitable[None]) -> str:
    try:
        async with asyncio.timeout(_PATIENCE):
            await asked
    except TimeoutError:
        return f"no answer within {_PATIENCE:g} s"
    except Unavailable as error:
        return str(error)
    except Exception as error:
        if not is_outage(error):
            raise
        return (str(error) or type(error).__name__).splitlines()[0]
    return "ok"


async def _count(spine: Spine) -> None:
    query = select(runs.c.lane, runs.c.status, func.count()).where(runs.c.status.in_(_LIVE))
    async with spine.store.read() as connection:
        counted = (await connection.execute(query.group_by(runs.c.lane, runs.c.status))).all()
        unpublished = await connection.scalar(select(func.count()).select_from(outbox))
    spine.figures.runs.clear()
    for lane, status, count in counted:
        spine.figures.runs.labels(lane, status).set(count)
    spine.figures.unpublished.set(unpublished or 0)
