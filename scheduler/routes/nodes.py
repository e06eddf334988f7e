"""Node types that flows may use here."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from scheduler.routes.docs import PROBLEMS
from scheduler.spine import spine_of
from scheduler.views import answer
from schemas.json import JSONValue

router = APIRouter(prefix="/nodes", tags=["nodes"], responses=PROBLEMS)


class NodeTypes(BaseModel):
    """Every node type, by name."""

    items: list[dict[str, JSONValue]]
    next_cursor: None = None


@router.get("", summary="List node types", responses={200: {"model": NodeTypes}}, response_model=None)
async def index(request: Request) -> Response:
    spine = spine_of(request)
    await spine.gate.admit(request)
    return answer({"items": [node_type.as_json() for node_type in spine.catalog.list()], "next_cursor": None})
