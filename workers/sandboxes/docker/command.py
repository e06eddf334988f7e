"""One command in a container of the runner image; the far side is `workers/runner/commands.py`."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from dataclasses import replace
from typing import Any, TypeVar

from schemas.errors import Unavailable
from schemas.outcome import ErrorKind, RunError
from workers.runner import command_wire as wire
from workers.runner.channel import Channel
from workers.sandboxes.box.base import CommandOrder, CommandOutcome, Exited, OnOutput, Stopped, ignore_output
from workers.sandboxes.docker.place import DockerPlace
from workers.sandboxes.docker.runner import ContainedProgram
from workers.sandboxes.docker.spec import Spec

T = TypeVar("T")

#: Memory and processes that our own program takes, beside the command's.
_OVERHEAD_MB, _OVERHEAD_PIDS = 96, 32
#: Seconds from a container's start to its first word.
_PATIENCE = 20.0
#: Seconds beyond the command's own limit, which is kept inside.
_GRACE = 5.0


async def run_contained(place: DockerPlace, order: CommandOrder, on_output: OnOutput) -> CommandOutcome:
    """Run a command to its end. Raises Unavailable or NotThere when no container is to be had."""
    limits = order.limits
    spec = Spec(
        image=place.settings.docker_image, runtime=place.usual_runtime, labels={"flo.role": "command"},
        memory_mb=limits.memory_mb + _OVERHEAD_MB, cpus=limits.cpus, pids=limits.pids + _OVERHEAD_PIDS,
        tmp_mb=limits.tmp_mb, file_size_mb=limits.file_size_mb,
    )  # fmt: skip
    async with place.yard.starts:
        program = await place.way.start(spec, "commands", {}, order.egress, ignore_output)
        told = _Told(on_output)
        try:
            channel = await told.listen(program)
        except BaseException:
            await _buried(program)
            raise
    channel.say({"do": "command", "order": wire.command_to(order)})
    try:
        async with asyncio.timeout(limits.timeout.total_seconds() + _GRACE):
            await told.wait()
    except TimeoutError:
        pass  # whoever keeps the time in there was kept from it
    finally:
        ending = await _buried(program)
        channel.close()
    return _judged(order, told.outcome.result() if told.outcome.done() else None, ending)


class _Told:
    """What is heard of one container."""

    def __init__(self, on_output: OnOutput) -> None:
        loop = asyncio.get_running_loop()
        self._on_output = on_output
        self.ready: asyncio.Future[None] = loop.create_future()
        self.outcome: asyncio.Future[CommandOutcome] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()

    async def wait(self) -> None:
        """Return when the command has ended, or nothing can be heard any more."""
        both: list[asyncio.Future[Any]] = [self.outcome, self.gone]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)

    async def listen(self, program: ContainedProgram) -> Channel:
        """Return when the program is ready; raises Unavailable when it is not in time."""
        channel = await Channel.open(program.channel.dup(), hear=self._hear, lost=self._lost)
        await asyncio.wait([self.ready, self.gone], timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if not self.ready.done():
            channel.close()
            raise Unavailable(f"the program in a container of the runner image was not ready in {_PATIENCE:g} s")
        return channel

    def _hear(self, message: dict[str, Any]) -> None:
        match message["say"]:
            case "ready":
                _settle(self.ready, None)
            case "output" if message["stream"] in ("stdout", "stderr"):
                self._on_output(message["stream"], b64decode(message["line"]))
            case "done":
                _settle(self.outcome, wire.command_outcome_from(message["outcome"]))
            case what:
                raise ValueError(f"{what!r} is not what such a program says")

    def _lost(self, mad: bool) -> None:
        _settle(self.gone, None)


def _settle(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


async def _buried(program: ContainedProgram) -> CommandOutcome:
    program.kill()
    return await program.wait()


def _judged(order: CommandOrder, outcome: CommandOutcome | None, ending: CommandOutcome) -> CommandOutcome:
    """Tell how the command ended, given how its container did."""
    usage = ending.usage
    if ending.usage.was_short_of_memory and not (isinstance(outcome, Exited) and outcome.code == 0):
        return _stopped(outcome or ending, _memory_exceeded(order.limits.memory_mb))
    match outcome, ending:
        case Exited() | Stopped(), _:
            return replace(outcome, usage=replace(outcome.usage, cgroups=usage.cgroups))
        case None, Stopped(error=RunError(kind=ErrorKind.LOST)):
            return ending
        case None, Stopped(error=RunError(kind=ErrorKind.CANCELLED)):
            return _stopped(ending, _timed_out(order))
        case _:
            message = "something in the command ended the program that looks after it in its container"
            return _stopped(ending, RunError(kind=ErrorKind.KILLED, message=message))


def _stopped(known: CommandOutcome, error: RunError) -> Stopped:
    return Stopped(error=error, stdout=known.stdout, stderr=known.stderr, usage=known.usage)


def _memory_exceeded(limit: int) -> RunError:
    return RunError(
        kind=ErrorKind.MEMORY_EXCEEDED,
        message=f"used more memory than its limit of {limit:,} MB; use less or raise memory_mb",
        details={"limit": limit, "raise_with": "memory_mb"},
    )


def _timed_out(order: CommandOrder) -> RunError:
    limit = round(order.limits.timeout.total_seconds() * 1000)
    return RunError(
        kind=ErrorKind.TIMED_OUT,
        message=f"ran longer than its limit of {limit:,} ms; use less or raise timeout_ms",
        details={"limit": limit, "raise_with": "timeout_ms"},
    )
