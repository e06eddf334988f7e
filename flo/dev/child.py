"""One process of the family: started, listened to, and stopped for certain."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from flo.orphans import die_with_parent

#: What a process said last, kept for the message that says why it did not start.
_LAST_WORDS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to start, and how long it may take to stop."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    #: Given on standard input; keeps secrets out of the process list.
    stdin: bytes = b""
    #: From SIGTERM to SIGKILL.
    grace: timedelta = timedelta(seconds=5)
    #: Flo is not up without it, and does not start when it does not.
    essential: bool = True
    #: A line that contains this says that the program is ready; empty when it says no such thing.
    ready_line: str = ""


class Child:
    """A running program, in a process group of its own, so that a Ctrl-C reaches it in our order only."""

    def __init__(self, program: Program, process: Process, hear: Callable[[str, str], None]) -> None:
        self.program = program
        self.last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self.ready = asyncio.Event()
        self._process = process
        self._hear = hear
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, program: Program, hear: Callable[[str, str], None]) -> Child:
        """Start the program; `hear` gets its name and each line that it prints."""
        process = await asyncio.create_subprocess_exec(
            *program.argv,
            env={**os.environ, **program.env},
            stdin=PIPE if program.stdin else DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            process_group=0,
            preexec_fn=die_with_parent(),
        )
        child = cls(program, process, hear)
        if process.stdin is not None:
            with suppress(ConnectionError):  # it ended at once; `wait` tells how
                process.stdin.write(program.stdin)
                await process.stdin.drain()
            process.stdin.close()
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        """Wait for its end, clear away what it left in its process group, and answer its exit code."""
        code = await self._process.wait()
        self._signal(signal.SIGKILL)
        with suppress(TimeoutError):  # a grandchild that left the group may hold the pipe
            await asyncio.wait_for(self._listening, timeout=1)
        return code

    async def stop(self, hurry: asyncio.Event) -> None:
        """Ask it to end; after its grace, or once `hurry` is set, kill it. Returns when it is dead."""
        self._signal(signal.SIGTERM)
        ended = asyncio.create_task(self._process.wait())
        hurried = asyncio.create_task(hurry.wait())
        try:
            await asyncio.wait(
                {ended, hurried}, timeout=self.program.grace.total_seconds(), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            hurried.cancel()
            self._signal(signal.SIGKILL)
            await ended

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        rest = b""
        while chunk := await self._process.stdout.read(1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._heard(line)
        if rest:
            self._heard(rest)

    def _heard(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        self.last_words.append(text)
        if self.program.ready_line and self.program.ready_line in text:
            self.ready.set()
        self._hear(self.program.name, text)
