"""What a runner in a box asks of its worker: whatever must not be done inside."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, cast

from schemas.json import JSONObject, JSONValue
from schemas.outcome import ErrorKind, Outcome, RunError
from workers.engine.hooks import Hook, NodeSeen, RunSeen
from workers.nodes.node import NodeCall, NodeError
from workers.preparation.recipe import Flaw, Lasts, Preparation, Recipe
from workers.runner import command_wire as commands
from workers.runner import wire
from workers.runner.channel import Channel
from workers.sandboxes.box.base import CommandOrder, CommandOutcome, OnOutput, PythonOrder, PythonOutcome
from workers.sandboxes.containers import ImageOrder

Hear = Callable[[wire.Said], None]


class Asks:
    """The questions that are open on one channel; `before` is called with a run's number before it asks anything."""

    def __init__(self, channel: Channel, *, before: Callable[[int], None]) -> None:
        self._channel = channel
        self._before = before
        self._numbers = count(1)
        self._open: dict[int, tuple[asyncio.Future[Any], Hear | None]] = {}

    async def ask(self, run: int, what: str, order: JSONObject | None = None, hear: Hear | None = None) -> Any:
        """Ask, and wait for the answer; `hear` takes what is said on the way to it.

        Being cancelled tells the worker that nobody waits any more.
        """
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._open[number] = (answer, hear)
        self._before(run)
        self._channel.say({"say": "ask", "ask": number, "run": run, "what": what, "order": order})
        try:
            return await answer
        except asyncio.CancelledError:
            self._channel.say({"say": "drop", "ask": number})
            raise
        finally:
            del self._open[number]

    def hear(self, message: wire.Said) -> None:
        """Take an answer, or something that is said on the way to it."""
        answer, hear = self._open.get(message["ask"], (None, None))
        if answer is None or answer.done():
            return
        if message["do"] == "answer":
            answer.set_result(message["value"])
        elif hear is not None:
            hear(message)


def _lines(on_output: OnOutput) -> Hear:
    """Hear the lines of a command."""
    return lambda message: on_output(message["stream"], b64decode(message["line"]))


class AskedPreparer:
    """Has the worker prepare code: it has the cache, the network and the tools."""

    def __init__(self, asks: Asks, run: int) -> None:
        self._asks = asks
        self._run = run

    async def prepare(self, recipe: Recipe) -> Preparation:
        answer = await self._asks.ask(self._run, "prepare", wire.recipe_to(recipe))
        if answer is None:
            return Flaw(kind=ErrorKind.INTERNAL, message="the worker can't prepare code", lasts=Lasts.NOT)
        return wire.preparation_from(answer)

    async def aclose(self) -> None:
        return


class AskedNodes:
    """Has the worker run operators' own nodes: they are trusted, and may need what no box has."""

    def __init__(self, asks: Asks, run: int) -> None:
        self._asks = asks
        self._run = run

    async def run_node(self, node_type: str, call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        order: JSONObject = {
            "type": node_type,
            "node_id": call.node_id,
            "config": call.config.model_dump(mode="json", exclude_unset=True),
            "inputs": dict(call.inputs),
            "attempt": call.attempt,
        }
        answer = await self._asks.ask(self._run, "node", order)
        if "error" in answer:
            raise NodeError(RunError.model_validate(answer["error"]))
        return cast(Mapping[str, JSONValue], answer["outputs"])


class AskedNode:
    """The place of an operator's own node in a box."""

    def __init__(self, node_type: str) -> None:
        self._type = node_type

    async def run(self, call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        assert call.tools.elsewhere is not None
        return await call.tools.elsewhere.run_node(self._type, call)


class AskedHook(Hook):
    """Has the worker tell its hooks, and waits until they have heard."""

    def __init__(self, asks: Asks, run: int) -> None:
        self._asks = asks
        self._run = run

    async def before_flow(self, run: RunSeen, payload: JSONValue) -> None:
        await self._tell("before_flow", payload=payload)

    async def after_flow(self, run: RunSeen, outcome: Outcome) -> None:
        await self._tell("after_flow", outcome=wire.outcome_to(outcome))

    async def before_node(self, node: NodeSeen, inputs: Mapping[str, JSONValue]) -> None:
        await self._tell("before_node", node, inputs=dict(inputs))

    async def after_node(self, node: NodeSeen, result: Mapping[str, JSONValue] | RunError) -> None:
        if isinstance(result, RunError):
            await self._tell("after_node", node, error=result.model_dump(mode="json"))
        else:
            await self._tell("after_node", node, outputs=dict(result))

    async def _tell(self, moment: str, node: NodeSeen | None = None, **what: JSONValue) -> None:
        place: JSONObject = {}
        if node is not None:
            place = {"node_id": node.node_id, "node_type": node.node_type, "attempt": node.attempt}
        await self._asks.ask(self._run, "hook", {"moment": moment, **place, **what})


class AskedContainers:
    """Has the worker run commands in containers."""

    def __init__(self, asks: Asks, run: int) -> None:
        self._asks = asks
        self._run = run

    async def run(self, order: CommandOrder, on_output: OnOutput) -> CommandOutcome:
        answer = await self._asks.ask(self._run, "container", commands.command_to(order), _lines(on_output))
        return commands.command_outcome_from(answer)

    async def run_image(self, order: ImageOrder, on_output: OnOutput) -> CommandOutcome:
        answer = await self._asks.ask(self._run, "image", commands.image_to(order), _lines(on_output))
        return commands.command_outcome_from(answer)


class AskedBox:
    """Has the worker run commands and Python, each in a fresh box of its own."""

    def __init__(self, asks: Asks, run: int) -> None:
        self._asks = asks
        self._run = run

    async def run(self, order: CommandOrder, on_output: OnOutput) -> CommandOutcome:
        answer = await self._asks.ask(self._run, "command", commands.command_to(order), _lines(on_output))
        return commands.command_outcome_from(answer)

    async def run_python(self, order: PythonOrder, on_output: OnOutput) -> PythonOutcome:
        answer = await self._asks.ask(self._run, "python", commands.python_to(order), _lines(on_output))
        return commands.python_outcome_from(answer)
