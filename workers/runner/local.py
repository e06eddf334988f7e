"""One run in this process: no server, no queue, no store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeAlias, assert_never

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
from workers.engine.registry import HubRegistry
from workers.engine.sink import EventSink
from workers.nodes.guarded import open_client
from workers.nodes.node import NodeTools
from workers.preparation.preparer import CachingPreparer
from workers.runner.protocol import LineSink
from workers.runner.standalone import StandaloneSolo
from workers.sandboxes.box.egress import egress_to
from workers.sandboxes.box.open import open_box
from workers.sandboxes.box.proxy import Network, Proxy
from workers.sandboxes.commands import CommandSandbox, NoBox
from workers.sandboxes.v8 import V8Pool

_IN_JAVASCRIPT = ("code.javascript", "code.typescript", "hub.")
#: Executes one run, telling its happenings.
Run: TypeAlias = Callable[[EventSink], Awaitable[Outcome]]
#: The app that local runs belong to.
LOCAL_APP = "local"


async def run_here(
    document: FlowDocument, payload: JSONValue, settings: Settings, catalog: Catalog, *, printing: bool
) -> RunView:
    """Run the flow and show the run; being cancelled is one way for a run to end. Raises Unavailable without V8.

    Where the operator names no mode the engine is this process: who runs a file of his own has nobody to be kept from
    it; code and commands are in their sandboxes. A mode that is named holds as in a worker.
    """
    run_id, created_at = new_id("run"), datetime.now(UTC)
    this = asyncio.current_task()
    assert this is not None
    events = LineSink(run_id, printing=printing, on_reader_gone=this.cancel)
    execute = _at_once if settings.execution_mode is None else _in_mode
    outcome: Outcome = Cancelled(reason="stopped from outside")
    with contextlib.suppress(asyncio.CancelledError):
        async with execute(document, payload, settings, catalog, run_id) as run:
            outcome = await _attempt(run, events)
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


async def _attempt(run: Run, events: LineSink) -> Outcome:
    """Do what a dispatcher does around an executor: say that the run started, and how it ended."""
    events.emit(Happening(EventType.RUN_STARTED, {"attempt": 1, "worker": LOCAL_APP, "executor": "inline"}))
    outcome: Outcome
    try:
        outcome = await run(events)
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
async def _at_once(
    document: FlowDocument, payload: JSONValue, settings: Settings, catalog: Catalog, run_id: str
) -> AsyncIterator[Run]:
    async with open_tools(document, settings, catalog, run_id=run_id) as tools:

        async def run(events: EventSink) -> Outcome:
            registry = HubRegistry(settings.hub)
            return await run_flow(document, payload, tools=tools, events=events, registry=registry, hooks=load_hooks())

        yield run


@asynccontextmanager
async def _in_mode(
    document: FlowDocument, payload: JSONValue, settings: Settings, catalog: Catalog, run_id: str
) -> AsyncIterator[Run]:
    # Imported only here: what a worker is made of takes longer to load than most files take to run.
    from workers.app_limits import NoLimits
    from workers.executors.base import RunOrder
    from workers.executors.modes import ModeExecutor
    from workers.executors.openings import Openings

    order = RunOrder(
        run_id=run_id, app=LOCAL_APP, flow=document.name, version=0, attempt=1, document=document, payload=payload,
        backend_config={}, may_park=False,
    )  # fmt: skip
    async with AsyncExitStack() as opened:
        openings = Openings(settings, standalone=True)
        opened.push_async_callback(openings.aclose)
        modes = ModeExecutor(openings.all(), settings=settings, limits=NoLimits(), catalog=catalog)
        opened.push_async_callback(modes.aclose)
        await modes.start()
        yield partial(modes.run, order)


@asynccontextmanager
async def open_tools(
    document: FlowDocument, settings: Settings, catalog: Catalog, *, run_id: str
) -> AsyncIterator[NodeTools]:
    """Open what this document's nodes need, and close it after. Raises Unavailable for what does not work here."""
    types = [used for _, used in catalog.used_by(document)]
    async with AsyncExitStack() as opened:
        code = V8Pool(hosts=1)
        if any(used.type.startswith(_IN_JAVASCRIPT) for used in types):
            await opened.enter_async_context(code)
        box: CommandSandbox = NoBox()
        if any(ExecutionMode.SANDBOX_CODE_ONLY not in used.modes for used in types):
            box = opened_box = await open_box()
            opened_box.open_proxy = partial(
                Proxy, network=Network.outside(allow_private=settings.allow_private_network)
            )
            opened.push_async_callback(opened_box.aclose)
        preparer = CachingPreparer.open(settings)
        opened.push_async_callback(preparer.aclose)
        http = await opened.enter_async_context(open_client(allow_private_network=settings.allow_private_network))
        solo = StandaloneSolo(settings)
        opened.push_async_callback(solo.aclose)
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
            solo=solo,
            http_places=asyncio.Semaphore(settings.max_inline_http),
        )
