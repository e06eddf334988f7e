"""Drives `bench_isolates.mjs`: isolates measured inside Node, without a pool around them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from workers.sandboxes.base import CodeOrder
from workers.sandboxes.node.setup import find_node

PROGRAM = Path(__file__).parent / "bench_isolates.mjs"
#: Longest line that a process answers with, in bytes.
LONGEST_ANSWER = 64 << 20


class Isolates:
    """One Node process per core, all doing the same kind of run (`raw`, `code` or `context`)."""

    def __init__(self, kind: str, order: CodeOrder) -> None:
        self._command = [find_node(), "--no-node-snapshot", PROGRAM, kind, str(order.memory_mb), order.source]
        self._processes: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        for _ in range(len(os.sched_getaffinity(0))):
            self._processes.append(
                await asyncio.create_subprocess_exec(
                    *self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=LONGEST_ANSWER
                )
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            await process.wait()

    async def one_by_one(self, runs: int, *, pause: float) -> list[float]:
        """Run in one process alone; give the milliseconds of each run."""
        return await _ask(self._processes[0], {"runs": runs, "pause_ms": pause * 1000})

    async def per_second(self, runs: int) -> float:
        """Run in all processes at once, so many in each, and tell how many came to an end per second."""
        times = await asyncio.gather(*(_ask(process, {"runs": runs}) for process in self._processes))
        return rate(times)

    async def for_seconds(self, seconds: float, *, processes: int | None = None) -> list[list[float]]:
        """Run for so long in so many processes (all by default); give the milliseconds of each run, by process."""
        wanted = {"seconds": seconds}
        return await asyncio.gather(*(_ask(process, wanted) for process in self._processes[:processes]))


def rate(times: Sequence[Sequence[float]]) -> float:
    """Tell runs per second from the milliseconds of each run, by process."""
    return sum(len(each) / sum(each) * 1000 for each in times)


async def _ask(process: asyncio.subprocess.Process, wanted: dict[str, Any]) -> list[float]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(wanted).encode() + b"\n")
    answer = await process.stdout.readline()
    if not answer:
        raise RuntimeError(f"{PROGRAM.name} ended with code {await process.wait()}")
    times: list[float] = json.loads(answer)
    return times
