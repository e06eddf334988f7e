"""What a runner in a box asks of its worker: whatever must not be done inside."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from itertools import count
from typing import Any

from schemas.json import JSONObject
from schemas.outcome import ErrorKind
from workers.preparation.recipe import Flaw, Lasts, Preparation, Recipe
from workers.runner import command_wire as commands
from workers.runner import wire
from workers.runner.channel import Channel
from workers.sandboxes.box.base import CommandOrder, CommandOutcome, OnOutput, PythonOrder, PythonOutcome


class Asks:
    """The questions that are open on one channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = count(1)
        self._open: dict[int, tuple[asyncio.Future[Any], OnOutput | None]] = {}

    async def ask(self, run: int, what: str, order: JSONObject | None = None, on_output: OnOutput | None = None) -> Any:
        """Ask, and wait for the answer. Being cancelled tells the worker that nobody waits any more."""
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._open[number] = (answer, on_output)
        self._channel.say({"say": "ask", "ask": number, "run": run, "what": what, "order": order})
        try:
            return await answer
        except asyncio.CancelledError:
            self._channel.say({"say": "drop", "ask": number})
            raise
        finally:
            del self._open[number]

    def hear(self, message: wire.Said) -> None:
        """Take an answer, or a line of what a command says."""
        answer, on_output = self._open.get(message["ask"], (None, None))
        if answer is None or answer.done():
            return
        if message["do"] == "answer":
            answer.set_result(message["value"])
        elif on_output is not None:
            on_output(message["stream"], b64decode(message["line"]))


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


class AskedBox:
    """Has the worker run commands and Python, each in a fresh box of its own."""

    def __init__(self, asks: Asks, run: int) -> None:
        self._asks = asks
        self._run = run

    async def run(self, order: CommandOrder, on_output: OnOutput) -> CommandOutcome:
        answer = await self._asks.ask(self._run, "command", commands.command_to(order), on_output)
        return commands.command_outcome_from(answer)

    async def run_python(self, order: PythonOrder, on_output: OnOutput) -> PythonOutcome:
        answer = await self._asks.ask(self._run, "python", commands.python_to(order), on_output)
        return commands.python_outcome_from(answer)
