"""The engine as a program in a box: runs what its worker sends over a socket, and tells what happens.

The box is its wall. What it can't do inside (durable events, building code, a box for a command) it asks of its worker.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import uvloop

from schemas.flow import FlowDocument
from schemas.outcome import Cancelled, ErrorKind, Failed, Outcome, RunError
from schemas.run import Happening
from workers.engine.drive import run_flow
from workers.engine.hooks import Hook
from workers.engine.shared import Shared
from workers.garbage import spare_what_stays
from workers.nodes.node import NodeTools
from workers.runner import wire
from workers.runner.asks import AskedHook, Asks
from workers.runner.channel import Channel
from workers.runner.inside import Inside, open_inside
from workers.runner.sharing import asked_shared
from workers.sandboxes.box.inside import kernel


def serve(fd: int, **given: Any) -> None:
    """Be the entry of a box (`ProgramOrder.entry`): serve the worker at `fd` until it hangs up."""
    # Code of the run may be another process of the same user: it must neither read nor write this one (ptrace(2)).
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    os.set_inheritable(fd, False)
    uvloop.run(serve_engine(socket.socket(fileno=fd), given))


async def serve_engine(end: socket.socket, given: Mapping[str, Any]) -> None:
    """Serve the worker at the other end until it hangs up."""
    await serve_with(end, open_inside(**given))


async def serve_with(end: socket.socket, opening: AbstractAsyncContextManager[Inside]) -> None:
    """Serve the worker with what is opened here."""
    gone = asyncio.Event()
    async with opening as inside:
        runner = Runner(inside)
        spare_what_stays()
        channel = await Channel.open(end, hear=runner.hear, lost=lambda _: gone.set())
        runner.begin(channel)
        await gone.wait()
        # The worker kills this box now; there is nobody left to tell anything.


class Runner:
    """The runs of one box."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._documents: dict[str, FlowDocument] = {}
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._channel: Channel | None = None
        self._asks: Asks | None = None

    def begin(self, channel: Channel) -> None:
        self._channel = channel
        self._asks = Asks(channel)
        channel.say({"say": "ready"})

    def hear(self, message: wire.Said) -> None:
        match message["do"]:
            case "know":
                self._documents[message["key"]] = FlowDocument.model_validate(message["document"])
            case "run":
                run = message["run"]
                self._runs[run] = asyncio.create_task(self._run(run, message["key"], message["order"]))
            case "cancel":
                if task := self._runs.get(message["run"]):
                    task.cancel()
            case _:
                assert self._asks is not None
                self._asks.hear(message)

    async def _run(self, run: int, key: str, order: wire.Said) -> None:
        assert self._channel is not None and self._asks is not None
        tools = self._inside.tools_for(order, self._asks, run)
        sink = _Sink(self._channel, self._asks, run)
        hooks = (AskedHook(self._asks, run),) if order["hooked"] else ()
        shared = asked_shared(self._asks, run, bulkheads=self._inside.bulkheads)
        outcome = await _attempt(self._documents[key], order, tools, sink, self._inside, hooks, shared)
        del self._runs[run]
        self._channel.say({"say": "done", "run": run, "outcome": wire.outcome_to(outcome)})


async def _attempt(  # noqa: PLR0917 - all that one attempt is made of
    document: FlowDocument,
    order: wire.Said,
    tools: NodeTools,
    sink: _Sink,
    inside: Inside,
    hooks: Sequence[Hook],
    shared: Shared,
) -> Outcome:
    try:
        past = [wire.happening_from(said) for said in order["past"]]
        return await run_flow(
            document,
            order["payload"],
            tools=tools,
            events=sink,
            past=past,
            registry=inside.registry,
            shared=shared,
            may_park=order["may_park"],
            hooks=hooks,
        )
    except asyncio.CancelledError:
        return Cancelled(reason="stopped from outside")
    except Exception as bug:  # noqa: BLE001 - the edge of a run: it must end, and say how
        message = f"Flo itself failed on this run ({type(bug).__name__}: {bug})"
        return Failed(error=RunError(kind=ErrorKind.INTERNAL, message=message))


class _Sink:
    """Tells the worker what happens in one run."""

    def __init__(self, channel: Channel, asks: Asks, run: int) -> None:
        self._channel = channel
        self._asks = asks
        self._run = run

    def emit(self, happening: Happening) -> None:
        self._channel.say({"say": "event", "run": self._run, **wire.happening_to(happening)})

    async def flush(self) -> None:
        await self._asks.ask(self._run, "flush")
