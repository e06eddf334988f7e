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
from schemas.json import JSONValue
from schemas.outcome import Cancelled, ErrorKind, Failed, Outcome, RunError
from schemas.run import Happening
from workers.engine.drive import run_flow
from workers.engine.hooks import Hook
from workers.engine.plan import Plans
from workers.engine.shared import Shared
from workers.garbage import spare_what_stays
from workers.nodes.node import NodeTools
from workers.runner import wire
from workers.runner.asks import AskedHook, Asks
from workers.runner.channel import Channel
from workers.runner.inside import Inside, open_inside
from workers.runner.sharing import asked_shared
from workers.sandboxes.box.inside import kernel

#: Seconds for which happenings gather; a short run has ended by then, and tells all of them with its end.
GATHER = 0.005


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
        self._plans = Plans(inside.registry)
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._channel: Channel | None = None
        self._asks: Asks | None = None
        self._told: Told | None = None

    def begin(self, channel: Channel) -> None:
        self._channel = channel
        self._told = Told(channel)
        self._asks = Asks(channel, before=self._told.tell)
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
        assert self._channel is not None and self._asks is not None and self._told is not None
        tools = self._inside.tools_for(order, self._asks, run)
        sink = _Sink(self._told, self._asks, run)
        hooks = (AskedHook(self._asks, run),) if order["hooked"] else ()
        shared = asked_shared(self._asks, run, bulkheads=self._inside.bulkheads)
        outcome = await _attempt(self._documents[key], order, tools, sink, self._plans, hooks, shared)
        del self._runs[run]
        rest = self._told.take(run)
        self._channel.say({"say": "done", "run": run, "events": rest, "outcome": wire.outcome_to(outcome)})


async def _attempt(  # noqa: PLR0917 - all that one attempt is made of
    document: FlowDocument,
    order: wire.Said,
    tools: NodeTools,
    sink: _Sink,
    plans: Plans,
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
            plans=plans,
            shared=shared,
            may_park=order["may_park"],
            hooks=hooks,
        )
    except asyncio.CancelledError:
        return Cancelled(reason="stopped from outside")
    except Exception as bug:  # noqa: BLE001 - the edge of a run: it must end, and say how
        message = f"Flo itself failed on this run ({type(bug).__name__}: {bug})"
        return Failed(error=RunError(kind=ErrorKind.INTERNAL, message=message))


class Told:
    """What happens in all runs gathers here for a moment: a message with many happenings costs little more than one."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._gathered: dict[int, list[JSONValue]] = {}

    def add(self, run: int, happening: Happening) -> None:
        if not self._gathered:
            self._loop.call_later(GATHER, self._tell_all)
        self._gathered.setdefault(run, []).append(wire.happening_to(happening))

    def tell(self, run: int) -> None:
        """Tell now what has happened in a run: what is said next is to come after it."""
        if events := self.take(run):
            self._channel.say({"say": "events", "run": run, "events": events})

    def take(self, run: int) -> list[JSONValue]:
        """Give what has not been told, for whoever tells it in another way."""
        return self._gathered.pop(run, [])

    def _tell_all(self) -> None:
        for run in list(self._gathered):
            self.tell(run)


class _Sink:
    """Tells the worker what happens in one run."""

    def __init__(self, told: Told, asks: Asks, run: int) -> None:
        self._told = told
        self._asks = asks
        self._run = run

    def emit(self, happening: Happening) -> None:
        self._told.add(self._run, happening)

    async def flush(self) -> None:
        await self._asks.ask(self._run, "flush")
