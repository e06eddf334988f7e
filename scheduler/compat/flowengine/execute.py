"""Execute a workflow, and answer when it is over."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from dispatch.store.history import read_histories
from dispatch.store.triggers import Target, put_event
from scheduler.auth import Scope
from scheduler.compat.flowengine.door import FlowEngineRoute, Visit, enter
from scheduler.compat.flowengine.values import execution_id
from scheduler.compat.flowengine.workflows import find_workflow
from scheduler.following import last_event
from scheduler.requests import read_body
from scheduler.starting import InvokeBody, find_target, start
from scheduler.views import answer
from schemas.errors import Conflict, Invalid, NotFound, Problem
from schemas.event import EventKind
from schemas.json import JSONObject, JSONValue
from schemas.run import EventType, Lane, RunEvent, RunStatus
from schemas.typed import plain_config

router = APIRouter(prefix="/api/workflows", route_class=FlowEngineRoute, include_in_schema=False)

#: Longest wait for the end. The run goes on after it.
_LONGEST_WAIT = timedelta(hours=1)


class ExecuteBody(BaseModel):
    """What the roots get: plain values, or typed ones."""

    model_config = ConfigDict(extra="forbid")

    inputs: dict[str, JSONValue] = {}


@router.post("/{workflow}/execute", response_model=None)
async def execute(request: Request, workflow: str) -> Response:
    """Run a workflow to its end: 200 with how many nodes completed, 500 with the reason when it failed."""
    visit = await enter(request, Scope.INVOKE)
    row = await find_workflow(visit, workflow)
    inputs = _plain((await read_body(request, ExecuteBody)).inputs)
    target = await _target(visit, workflow)
    accepted = await start(
        visit.spine, target, InvokeBody(payload=inputs), lane=Lane.FLOW, mode=None, idempotency_key=None
    )
    last = await last_event(visit.spine, accepted.run_id, timeout=_LONGEST_WAIT)
    if last is None:
        message = f"execution {execution_id(accepted.run_id)} goes on; see GET /api/v1/runs/{accepted.run_id}"
        return answer({"error": message}, status=504)
    if last.happening.data.get("status") != RunStatus.SUCCEEDED:
        return answer({"error": _reason(last)}, status=500)
    async with visit.spine.store.read() as connection:
        (history,) = (await read_histories(connection, [accepted.run_id])).values()
    completed = {one.node_id for one in history if one.type is EventType.NODE_COMPLETED}
    return answer(
        {
            "execution_id": execution_id(accepted.run_id),
            "completed_nodes": len(completed),
            "total_nodes": len(row["document"]["nodes"]),
        }
    )


async def _target(visit: Visit, workflow: str) -> Target:
    """Find what to start. A flow that was not made through this API may have no event of its name yet."""
    try:
        target = await find_target(visit.spine, visit.app, workflow)
    except NotFound:
        async with visit.spine.store.write() as connection:
            await put_event(
                connection, app=visit.app, name=workflow, kind=EventKind.INVOKE, flow=workflow, version=None,
                config={}, path=None,
            )  # fmt: skip
        visit.spine.targets.forget()
        target = await find_target(visit.spine, visit.app, workflow)
    if target.flow != workflow:
        raise Conflict(f'the event "{workflow}" of app "{visit.app}" starts another flow, "{target.flow}"')
    return target


def _plain(inputs: JSONObject) -> JSONObject:
    problems: list[Problem] = []
    plain = plain_config(inputs, path="inputs", problems=problems)
    if problems:
        raise Invalid(problems, what="request body")
    return plain


def _reason(last: RunEvent) -> str:
    """Word why a run failed, as FlowEngine does."""
    data = last.happening.data
    error = data.get("error")
    if not isinstance(error, dict):
        return f"Workflow {data.get('status')}"
    node, message = error.get("node_id"), error.get("message")
    return f"Node {node} failed: {message}" if node else str(message)
