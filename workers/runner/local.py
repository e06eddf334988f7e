"""One run in this process: no server, no queue, no store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import assert_never

from schemas.catalog import Catalog
from schemas.flow import FlowDocument
from schemas.fold import nodes_from
from schemas.ids import new_id
from schemas.json import JSONValue
from schemas.outcome import Cancelled, ErrorKind, Failed, Outcome, Parked, Retry, RunError, Succeeded
from schemas.run import EventType, Happening, Lane, RunStatus, RunView, status_of
from schemas.settings import ExecutionMode, ExecutorName, Settings
from workers.engine.drive import run_flow
from workers.engine.plugins import load_hooks
from workers.engine.registry import HubRegistry, Registry
from workers.nodes.guarded import open_client
from workers.nodes.node import NodeTools
from workers.preparation.preparer import CachingPreparer
from workers.runner.protocol import LineSink
from workers.sandboxes.box.egress import egress_to
from workers.sandboxes.box.open import open_box
from workers.sandboxes.box.plain import open_plain
from workers.sandboxes.commands import CommandSandbox, NoBox
from workers.sandboxes.node.pool import NodePool
from workers.sandboxes.plain_node import PlainNodePool
from workers.sandboxes.v8 import V8Pool

_IN_JAVASCRIPT = ("code.javascript", "code.typescript", "hub.")
#: The app that local runs belong to.
LOCAL_APP = "local"


async def run_here(
    document: FlowDocument, payload: JSONValue, settings: Settings, catalog: Catalog, *, printing: bool
) -> RunView:
    """Run the flow and show the run; being cancelled is one way for a run to end. Raises Unavailable without V8."""
    run_id, created_at = new_id("run"), datetime.now(UTC)
    this = asyncio.current_task()
    assert this is not None
    events = LineSink(run_id, printing=printing, on_reader_gone=this.cancel)
    outcome: Outcome = Cancelled(reason="stopped from outside")
    with contextlib.suppress(asyncio.CancelledError):
        async with open_tools(document, settings, catalog, run_id=run_id) as tools:
            outcome = await _attempt(document, payload, tools, events, HubRegistry(settings.hub))
    status, result, error = settle(outcome)
    return RunView(
        run_id=run_id,
        app=LOCAL_APP,
        flow=document.name,
        version=0,
        event=None,
        lane=str(Lane.FLOW),
        status=status,
        attempt=1,
        executor=str(ExecutorName.INLINE),
        payload=payload,
        result=result,
        error=error,
        created_at=created_at,
        started_at=_time_of(events, EventType.RUN_STARTED),
        finished_at=_time_of(events, EventType.RUN_COMPLETED) or datetime.now(UTC),
        nodes=nodes_from(document, events.happenings),
    )


async def _attempt(
    document: FlowDocument, payload: JSONValue, tools: NodeTools, events: LineSink, registry: Registry
) -> Outcome:
    """Do what a dispatcher does around the engine: say that the run started, and how it ended."""
    events.emit(Happening(EventType.RUN_STARTED, {"attempt": 1, "worker": LOCAL_APP, "executor": "inline"}))
    outcome: Outcome
    try:
        outcome = await run_flow(document, payload, tools=tools, events=events, registry=registry, hooks=load_hooks())
    except asyncio.CancelledError:
        outcome = Cancelled(reason="stopped from outside")
    status, result, error = settle(outcome)
    shown = error.model_dump(mode="json") if error else None
    events.emit(Happening(EventType.RUN_COMPLETED, {"status": str(status), "result": result, "error": shown}))
    return outcome


def _time_of(events: LineSink, type_: EventType) -> datetime | None:
    return next((said.time for said in events.happenings if said.type is type_), None)


def settle(outcome: Outcome) -> tuple[RunStatus, JSONValue, RunError | None]:
    """Say what an outcome means for a run that gets one attempt only."""
    match outcome:
        case Succeeded(result=result):
            return RunStatus.SUCCEEDED, result, None
        case Failed(error=error):
            return status_of(error), None, error
        case Cancelled(reason=reason):
            return RunStatus.CANCELLED, None, RunError(kind=ErrorKind.CANCELLED, message=reason)
        case Retry(reason=reason):
            return RunStatus.FAILED, None, RunError(kind=ErrorKind.LOST, message=reason)
        case Parked(reason=reason):  # never so here: the engine is not told that it may
            return RunStatus.FAILED, None, RunError(kind=ErrorKind.INTERNAL, message=f"left waiting for {reason}")
        case _:
            assert_never(outcome)


@asynccontextmanager
async def open_tools(
    document: FlowDocument, settings: Settings, catalog: Catalog, *, run_id: str
) -> AsyncIterator[NodeTools]:
    """Open what this document's nodes need, and close it after.

    The engine is this process, whatever the mode: who runs a file of his own has nobody to be kept from it. For code
    and commands the mode holds here, too. Raises Unavailable for what does not work on this machine.
    """
    types = [used for _, used in catalog.used_by(document)]
    unsandboxed = settings.execution_mode is ExecutionMode.UNSANDBOXED
    async with AsyncExitStack() as opened:
        code: NodePool = PlainNodePool(hosts=1) if unsandboxed else V8Pool(hosts=1)
        if any(used.type.startswith(_IN_JAVASCRIPT) for used in types):
            await opened.enter_async_context(code)
        box: CommandSandbox = NoBox()
        if any(ExecutionMode.SANDBOX_CODE_ONLY not in used.modes for used in types):
            box = opened_box = await (open_plain() if unsandboxed else open_box())
            opened.push_async_callback(opened_box.aclose)
        preparer = CachingPreparer.open(settings, platform="node" if unsandboxed else "v8")
        opened.push_async_callback(preparer.aclose)
        http = await opened.enter_async_context(open_client(allow_private_network=settings.allow_private_network))
        yield NodeTools(
            code=code,
            http=http,
            box=box,
            app=LOCAL_APP,
            run_id=run_id,
            attempt=1,
            inline_http_cap=timedelta(seconds=settings.inline_http_max_duration),
            preparer=preparer,
            egress=egress_to(settings.reach),
        )
