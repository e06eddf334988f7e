"""The JSON Schema of flow documents, for editors, which fetch it without a key."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from scheduler.spine import spine_of
from schemas.flow_schema import flow_schema

router = APIRouter(prefix="/schema", tags=["flows"])


@router.get(
    "/flow.json",
    summary="JSON Schema of flow documents",
    responses={200: {"content": {"application/schema+json": {}}}},
    response_class=Response,
    openapi_extra={"security": []},
)
async def flow(request: Request) -> Response:
    """Describe flow documents with every node type that is known here (JSON Schema, draft 2020-12)."""
    types = spine_of(request).catalog.list()
    known, text = getattr(request.app.state, "flow_schema", (None, b""))
    if known != types:  # at first, and when a hub package was installed since
        text = orjson.dumps(flow_schema(types))
        request.app.state.flow_schema = (types, text)
    return Response(text, media_type="application/schema+json", headers={"cache-control": "max-age=300"})
