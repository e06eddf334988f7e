"""Node types whose work the test itself decides, and tools that reach nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from schemas.catalog import Catalog
from schemas.flow import FlowDocument
from schemas.json import JSONValue
from schemas.nodes.spec import NodeConfig, NodeType
from schemas.outcome import Outcome
from schemas.run import EventType, Happening
from schemas.settings import ExecutionMode
from schemas.validation import read_document
from workers.engine.drive import run_flow
from workers.engine.registry import BUILT_IN, Registered
from workers.engine.sink import EventSink, MemorySink
from workers.nodes.guarded import open_client
from workers.nodes.node import NodeCall, NodeTools
from workers.sandboxes.base import CodeOrder, CodeOutcome, CodeReturned, OnLog

Work = Callable[[NodeCall[Any]], Awaitable[Mapping[str, JSONValue]]]


class ScriptedNode:
    """A node that does what a function says."""

    def __init__(self, work: Work) -> None:
        self._work = work

    async def run(self, call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        return await self._work(call)


class ScriptedCode:
    """A code sandbox that answers what a function says."""

    def __init__(self, answer: Callable[[CodeOrder], CodeOutcome] | None = None) -> None:
        self._answer = answer or (lambda order: CodeReturned(dict(order.inputs)))
        self.orders: list[CodeOrder] = []

    async def run(self, order: CodeOrder, on_log: OnLog) -> CodeOutcome:
        self.orders.append(order)
        on_log("info", "running")
        return self._answer(order)

    async def aclose(self) -> None:
        return


class Gate:
    """Work that waits until the test opens it, and knows how it ended."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()
        self.cancelled = False

    async def __call__(self, call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        self.entered.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # a node that takes a turn of the loop to clean up
            self.cancelled = True
            raise
        return {"output": call.node_id}


def script(*, repeatable: bool = True, **works: Work) -> dict[str, Registered]:
    """Register each function as the node type of its name, with any ports."""
    return {
        name: Registered(
            NodeType(
                type=name,
                category="test",
                description="scripted",
                open_inputs=True,
                open_outputs=True,
                config=NodeConfig,
                example={},
                repeatable=repeatable,
            ),
            ScriptedNode(work),
        )
        for name, work in works.items()
    }


def read(raw: object, registry: Mapping[str, Registered] = MappingProxyType({})) -> FlowDocument:
    types = [known.type for known in {**BUILT_IN, **registry}.values()]
    catalog = Catalog(types, mode=ExecutionMode.SANDBOX_CODE_ONLY)
    return read_document(raw, catalog=catalog, max_inline_http=timedelta(seconds=300))[0]


def tools(code: ScriptedCode | None = None) -> NodeTools:
    return NodeTools(
        code=code or ScriptedCode(),
        http=open_client(allow_private_network=False),
        app="app",
        run_id="run",
        attempt=1,
    )


async def run(
    raw: object,
    payload: JSONValue = None,
    *,
    registry: Mapping[str, Registered] = MappingProxyType({}),
    events: EventSink | None = None,
    past: Sequence[Happening] = (),
    code: ScriptedCode | None = None,
    may_park: bool = False,
) -> Outcome:
    return await run_flow(
        read(raw, registry),
        payload,
        tools=tools(code),
        events=events or MemorySink(),
        past=past,
        registry={**BUILT_IN, **registry},
        may_park=may_park,
    )


def told(events: MemorySink, *types: EventType) -> list[tuple[str, str | None]]:
    """List what happened to whom, of these types or of all."""
    return [(str(said.type), said.node_id) for said in events.happenings if not types or said.type in types]
