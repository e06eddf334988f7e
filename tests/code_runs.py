"""Short ways to run code and to say what came of it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO

from schemas.json import JSONObject, JSONValue
from schemas.outcome import RunError
from workers.sandboxes.base import CodeFailed, CodeOrder, CodeOutcome, CodeReturned, CodeSandbox
from workers.sandboxes.node.jail import HostProcess, Jail, NoJail
from workers.sandboxes.node.program import HostProgram

#: Long enough for a loaded machine: tests of the time limit give their own.
PATIENT = timedelta(seconds=60)
SHORT = timedelta(milliseconds=300)

ENDLESS = "export default () => { for (;;); }"
#: Tells that it has begun, and then never ends.
WAITING = "export default () => { console.log('begun'); return new Promise(() => {}); }"
#: Takes native memory, which V8 does not count against the isolate's heap, until someone stops it.
HOST_KILLER = """
export default () => {
  const kept = [], text = 'ab '.repeat(100000);
  for (;;) kept.push(new Intl.Segmenter('en').segment(text + kept.length));
}
"""


def order(
    source: str,
    inputs: Mapping[str, JSONValue] | None = None,
    *,
    timeout: timedelta = PATIENT,
    memory_mb: int = 64,
    max_output_bytes: int = 1_000_000,
    filename: str = "code.js",
) -> CodeOrder:
    return CodeOrder(
        source=source,
        inputs=inputs or {},
        app="shop",
        timeout=timeout,
        memory_mb=memory_mb,
        max_output_bytes=max_output_bytes,
        filename=filename,
    )


class Rewriting:
    """A jail whose hosts are started by another command line."""

    name = "rewriting"

    def __init__(self, rewrite: Callable[[Sequence[str]], list[str]], jail: Jail | None = None) -> None:
        self._rewrite = rewrite
        self._jail: Jail = jail or NoJail()

    async def start(self, program: HostProgram, *, node: Path) -> HostProcess:
        rewritten = Rewritten(name=program.name, folder=program.folder, original=program, rewrite=self._rewrite)
        return await self._jail.start(rewritten, node=node)

    async def aclose(self) -> None:
        await self._jail.aclose()


@dataclass(frozen=True, kw_only=True)
class Rewritten(HostProgram):
    """A program with another command line."""

    original: HostProgram
    rewrite: Callable[[Sequence[str]], list[str]]

    def command(self, *, node: Path, folder: Path) -> list[str]:
        return self.rewrite(self.original.command(node=node, folder=folder))


class Heard:
    """Keeps what code logged, and lets a test wait for a line."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self._news = asyncio.Event()

    def __call__(self, level: str, message: str) -> None:
        self.lines.append((level, message))
        self._news.set()

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():
            self._news.clear()
            await self._news.wait()


async def run(sandbox: CodeSandbox, wanted: CodeOrder) -> CodeOutcome:
    return await sandbox.run(wanted, lambda level, message: None)


async def value_of(sandbox: CodeSandbox, source: str, inputs: Mapping[str, JSONValue] | None = None) -> JSONValue:
    outcome = await run(sandbox, order(source, inputs))
    assert isinstance(outcome, CodeReturned), outcome
    return outcome.value


async def error_of(sandbox: CodeSandbox, wanted: CodeOrder | str) -> RunError:
    outcome = await run(sandbox, order(wanted) if isinstance(wanted, str) else wanted)
    assert isinstance(outcome, CodeFailed), outcome
    return outcome.error


def details(error: RunError) -> JSONObject:
    assert error.details is not None
    return error.details


def alive(pid: int) -> bool:
    """Tell whether a process is there and not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Worker(subprocess.Popen[str]):
    """A Python of its own, whose words can be read."""

    stdout: IO[str]


def start_worker(program: str) -> Worker:
    return Worker([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


async def death_of(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
