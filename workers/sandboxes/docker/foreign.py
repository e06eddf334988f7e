"""One run of an image that is not ours: attached, held to its limits from outside, and killed when it breaks them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

from schemas.outcome import ErrorKind, RunError
from workers.sandboxes.box.base import BoxLimits, CommandOutcome, Exited, OnOutput, Stopped, Usage
from workers.sandboxes.box.streams import Lines
from workers.sandboxes.containers import ImageOrder
from workers.sandboxes.docker.container import Container, Ending, Yard
from workers.sandboxes.docker.place import DockerPlace
from workers.sandboxes.docker.spec import Spec

#: Marks a container with what it belongs to.
_RUN, _ATTEMPT = "flo.run", "flo.attempt"


async def run_foreign(
    place: DockerPlace, order: ImageOrder, on_output: OnOutput, *, network: str | None
) -> CommandOutcome:
    """Run an image to its end. Raises Unavailable or NotThere when no container is to be had."""
    await _end_earlier_attempts(place.yard, order)
    limits = order.limits
    spec = Spec(
        image=order.image, command=order.argv, entrypoint=order.entrypoint, cwd=order.cwd,
        env={"HOME": "/work", **order.env}, runtime=place.usual_runtime, network=network or "none",
        memory_mb=limits.memory_mb, cpus=limits.cpus, pids=limits.pids, cpu_seconds=limits.cpu_seconds,
        tmp_mb=limits.tmp_mb, file_size_mb=limits.file_size_mb,
        labels={"flo.role": "docker.run", _RUN: order.run_id, _ATTEMPT: str(order.attempt), "flo.app": order.app},
    )  # fmt: skip
    heard = _Heard(limits, on_output)
    async with place.yard.starts:
        container = await place.yard.start(spec, heard.take)
    heard.belongs_to(container)
    try:
        container.write(order.stdin)
        container.end_input()
        async with asyncio.timeout(limits.timeout.total_seconds()):
            ending = await asyncio.shield(container.ending)
    except TimeoutError:
        heard.stop(_limited(ErrorKind.TIMED_OUT, _too_long(limits), _milliseconds(limits), "timeout_ms"))
        ending = await container.ending
    except asyncio.CancelledError:
        container.kill()
        await asyncio.wait([container.ending])
        raise
    return heard.judged(ending)


async def _end_earlier_attempts(yard: Yard, order: ImageOrder) -> None:
    """Remove what a worker has left that died with an attempt before this one: two must not be at work at once."""
    if order.attempt == 1:
        return
    found = await yard.daemon.ask(
        lambda client: client.containers(all=True, filters={"label": f"{_RUN}={order.run_id}"})
    )
    for each in found:
        if int(each["Labels"][_ATTEMPT]) < order.attempt:
            await yard.remove(each["Id"])


class _Heard:
    """What a container has written, and why it was stopped if it was."""

    def __init__(self, limits: BoxLimits, on_output: OnOutput) -> None:
        self._limits = limits
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}
        self._lines = {name: Lines(partial(on_output, name)) for name in self._kept}
        self._room = limits.max_output_bytes
        self._stopped: RunError | None = None
        self._container: Container | None = None

    def belongs_to(self, container: Container) -> None:
        self._container = container
        if self._stopped is not None:
            container.kill()

    def take(self, stream: str, data: bytes) -> None:
        fitting = data[: max(0, self._room)]
        self._room -= len(data)
        self._kept[stream] += fitting
        self._lines[stream].take(fitting)
        if self._room < 0:
            limit = self._limits.max_output_bytes
            found = f"wrote more than its limit of {limit:,} bytes"
            self.stop(_limited(ErrorKind.OUTPUT_EXCEEDED, found, limit, "max_output_bytes"))

    def stop(self, why: RunError) -> None:
        """Kill the container; the first reason counts."""
        self._stopped = self._stopped or why
        if self._container is not None:
            self._container.kill()

    def judged(self, ending: Ending) -> CommandOutcome:
        for lines in self._lines.values():
            lines.end()
        usage = _usage(ending)
        stdout, stderr = (bytes(self._kept[name]) for name in ("stdout", "stderr"))
        error = self._stopped or _error(self._limits, ending)
        if error is not None:
            return Stopped(error=error, stdout=stdout, stderr=stderr, usage=usage)
        return Exited(code=ending.code or 0, stdout=stdout, stderr=stderr, files={}, missing={}, usage=usage)


def _error(limits: BoxLimits, ending: Ending) -> RunError | None:
    if ending.lost:
        return RunError(kind=ErrorKind.LOST, message=f"the container was lost: {ending.lost}")
    if ending.was_killed:
        return RunError(kind=ErrorKind.CANCELLED, message="was killed, as its owner asked")
    if ending.was_short_of_memory and ending.code != 0:
        found = f"used more memory than its limit of {limits.memory_mb:,} MB"
        return _limited(ErrorKind.MEMORY_EXCEEDED, found, limits.memory_mb, "memory_mb")
    return None


def _too_long(limits: BoxLimits) -> str:
    return f"ran longer than its limit of {_milliseconds(limits):,} ms"


def _milliseconds(limits: BoxLimits) -> int:
    return round(limits.timeout.total_seconds() * 1000)


def _limited(kind: ErrorKind, found: str, limit: float, raise_with: str) -> RunError:
    message = f"{found}; use less or raise {raise_with}"
    return RunError(kind=kind, message=message, details={"limit": limit, "raise_with": raise_with})


def _usage(ending: Ending) -> Usage:
    return Usage(
        wall=ending.wall, cpu=timedelta(0), peak_memory_bytes=0, cgroups=frozenset({"memory", "pids", "cpu"}),
        was_short_of_memory=ending.was_short_of_memory,
    )  # fmt: skip
