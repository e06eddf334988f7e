"""Results that nodes have given and that are kept: an app's owner may have them forgotten."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from dispatch.store.shared import forget_results
from scheduler.auth import Scope
from scheduler.routes.docs import PROBLEMS, TEXT, AppName
from scheduler.spine import spine_of
from scheduler.views import answer

router = APIRouter(prefix="/apps/{app}/cache", tags=["apps"], responses=PROBLEMS)

NodeTypeFilter = Annotated[
    str | None, Query(max_length=200, pattern=TEXT, description="only those of this node type, e.g. http.request")
]


class Forgotten(BaseModel):
    """How many results were dropped."""

    forgotten: int


@router.delete(
    "", summary="Forget the results that nodes' caches keep", responses={200: {"model": Forgotten}}, response_model=None
)
async def forget(request: Request, app: AppName, node_type: NodeTypeFilter = None) -> Response:
    spine = spine_of(request)
    (await spine.gate.admit(request)).require(Scope.WRITE, app=app)
    forgotten = await spine.store.transact(partial(forget_results, app=app, node_type=node_type))
    return answer({"forgotten": forgotten})
