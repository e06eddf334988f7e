"""Answers what the runs in one box ask of their worker, within what they may have."""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TypeAlias

import structlog

from dispatch.claims import LostClaim
from schemas.errors import FloError
from schemas.json import JSONValue
from schemas.outcome import ErrorKind, RunError
from workers.engine.shared import Shared
from workers.engine.sink import EventSink
from workers.engine.solo import Solo
from workers.executors.base import RunOrder
from workers.executors.boxed import sharing
from workers.executors.boxed.operators import Operators
from workers.executors.boxed.told import ToldNode, run_alone
from workers.preparation.preparer import Preparer
from workers.runner import command_wire as commands
from workers.runner import wire
from workers.runner.channel import Channel
from workers.runner.solo import solo_from
from workers.sandboxes.box.base import NO_EGRESS, NO_USAGE, BoxLimits, OnOutput, Stopped
from workers.sandboxes.box.egress import Egress
from workers.sandboxes.commands import CommandSandbox
from workers.sandboxes.containers import Containers, NoContainers
from workers.tenure import Begin, without_end

log = structlog.get_logger()

Work: TypeAlias = Callable[[], Awaitable[JSONValue]]

#: Questions of one box that may be open at once; what comes beyond waits.
MOST_AT_ONCE = 64
#: The most that a run may ask for, however it words its order: the same as what documents may say.
CEILING = BoxLimits(
    timeout=timedelta(days=1), memory_mb=16_384, pids=4_096, file_size_mb=16_384, tmp_mb=16_384,
    max_output_bytes=100_000_000, open_files=4_096,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What a worker does for runs that live in boxes."""

    preparer: Preparer
    #: Where commands and Python run that a box must not run itself.
    commands: CommandSandbox
    #: Where commands run that are to have a container.
    containers: Containers = field(default_factory=NoContainers)
    #: None where nothing of an operator's own is installed.
    operators: Operators | None = None
    #: What the runs of an app share.
    shared: Shared = field(default_factory=Shared)
    #: Runs nodes alone; None for those that are.
    solo: Solo | None = None
    #: Asked before a box is made: whether it may still act.
    begin: Begin = without_end


class Desk:
    """The open questions of one box."""

    def __init__(self, services: Services, egress: Egress) -> None:
        self._services = services
        self._egress = egress
        #: By their numbers: whose they are, and what answers.
        self._open: dict[int, tuple[RunOrder, asyncio.Task[None]]] = {}
        #: Of nodes that run alone: who waits for their words to be durable.
        self._told: dict[int, ToldNode] = {}
        self._places = asyncio.Semaphore(MOST_AT_ONCE)

    def take(self, channel: Channel, order: RunOrder, events: EventSink, message: wire.Said) -> None:
        """Begin to answer. Raises ValueError for what can't be asked."""
        number, what = int(message["ask"]), message["what"]
        if number in self._open:
            raise ValueError(f"question {number} is asked twice")
        asked = message["order"]

        def on_output(stream: str, line: bytes) -> None:
            said = b64encode(line).decode()
            channel.say({"do": "output", "ask": number, "stream": stream, "line": said})

        match what:
            case "flush":
                work: Work = partial(_flushed, events)
            case "prepare":
                work = partial(self._prepared, asked)
            case "command":
                work = partial(self._command, order, asked, on_output)
            case "python":
                work = partial(self._python, order, asked, on_output)
            case "container":
                work = partial(self._container, order, asked, on_output)
            case "image":
                work = partial(self._image, order, asked, on_output)
            case "shared":
                work = partial(sharing.answer, self._services.shared, asked, app=order.app)
            case "node" if self._services.operators is not None:
                work = partial(self._services.operators.run_node, order, events, asked)
            case "solo" if self._services.solo is not None:
                told = self._told[number] = ToldNode(channel, number)
                work = partial(run_alone, self._services.solo, solo_from(asked, order), told)
            case "solo_saved":
                work = partial(self._saved, int(asked["ask"]))
            case "hook" if self._services.operators is not None:
                work = partial(self._services.operators.tell, order, asked)
            case _:
                raise ValueError(f"{what!r} is no question")
        task = asyncio.create_task(self._answer(channel, number, work), name=f"{what} for {order.run_id}")
        self._open[number] = (order, task)
        task.add_done_callback(lambda _: self._close(number))

    def drop(self, number: int) -> None:
        """Stop what nobody waits for any more."""
        if number in self._open:
            self._open[number][1].cancel()

    async def settle(self, order: RunOrder) -> None:
        """Stop what is open for this run, and return when it has stopped: nothing of it outlives the run."""
        if self._open:
            await _stop([task for asker, task in self._open.values() if asker is order])

    async def aclose(self) -> None:
        """Stop everything, and return when it has stopped."""
        await _stop([task for _, task in self._open.values()])

    def _close(self, number: int) -> None:
        self._open.pop(number, None)
        self._told.pop(number, None)

    async def _answer(self, channel: Channel, number: int, work: Work) -> None:
        try:
            # A node that runs alone may wait for long, and has places of its own to wait for.
            async with contextlib.nullcontext() if number in self._told else self._places:
                value = await work()
        except LostClaim:
            return  # another attempt has the run: this one is being stopped
        except (ValueError, LookupError, TypeError) as nonsense:
            log.warning("box.nonsense", reason=repr(nonsense))
            channel.abort()
            return
        channel.say({"do": "answer", "ask": number, "value": value})

    async def _prepared(self, asked: wire.Said) -> JSONValue:
        return wire.preparation_to(await self._services.preparer.prepare(wire.recipe_from(asked)))

    async def _saved(self, number: int) -> JSONValue:
        told = self._told.get(number)
        return await told.saved() if told is not None else None  # the node is over, and waits for nothing

    async def _command(self, order: RunOrder, asked: wire.Said, on_output: OnOutput) -> JSONValue:
        try:
            command = commands.command_from(asked, app=order.app, egress=self._egress_for(asked))
            command = replace(command, limits=within(command.limits))
            return commands.command_outcome_to(await self._services.commands.run(command, on_output))
        except FloError as problem:
            return commands.command_outcome_to(_refused(problem))

    async def _container(self, order: RunOrder, asked: wire.Said, on_output: OnOutput) -> JSONValue:
        try:
            command = commands.command_from(asked, app=order.app, egress=self._egress_for(asked))
            command = replace(command, limits=within(command.limits))
            return commands.command_outcome_to(await self._services.containers.run(command, on_output))
        except FloError as problem:
            return commands.command_outcome_to(_refused(problem))

    async def _image(self, order: RunOrder, asked: wire.Said, on_output: OnOutput) -> JSONValue:
        try:
            image = commands.image_from(asked, app=order.app, run_id=order.run_id, attempt=order.attempt)
            image = replace(image, limits=within(image.limits))
            return commands.command_outcome_to(await self._services.containers.run_image(image, on_output))
        except FloError as problem:
            return commands.command_outcome_to(_refused(problem))

    async def _python(self, order: RunOrder, asked: wire.Said, on_output: OnOutput) -> JSONValue:
        try:
            python = commands.python_from(asked, app=order.app, egress=self._egress_for(asked))
            python = replace(python, limits=within(python.limits))
            return commands.python_outcome_to(await self._services.commands.run_python(python, on_output))
        except FloError as problem:
            return commands.python_outcome_to(_refused(problem))

    def _egress_for(self, asked: wire.Said) -> Egress:
        return self._egress if asked["network"] is True else NO_EGRESS


async def _stop(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _flushed(events: EventSink) -> JSONValue:
    await events.flush()
    return None


def within(limits: BoxLimits) -> BoxLimits:
    """Cut limits down to the ceiling."""
    most = CEILING
    return replace(
        limits,
        timeout=min(limits.timeout, most.timeout),
        memory_mb=min(limits.memory_mb, most.memory_mb),
        pids=min(limits.pids, most.pids),
        file_size_mb=min(limits.file_size_mb, most.file_size_mb),
        tmp_mb=min(limits.tmp_mb, most.tmp_mb),
        max_output_bytes=min(limits.max_output_bytes, most.max_output_bytes),
        open_files=min(limits.open_files, most.open_files),
    )


def _refused(problem: FloError) -> Stopped:
    error = RunError(kind=ErrorKind.INVALID_INPUT, message=str(problem))
    return Stopped(error=error, stdout=b"", stderr=b"", usage=NO_USAGE)
