"""Keeps one program running, whatever happens to it, until it is told to stop."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from flo.dev.child import Child, Program
from flo.dev.restarts import deaths_in_row, how_it_ended, pause_before_restart
from flo.dev.voice import Voice
from flo.errors import DidNotStart


class Keeper:
    def __init__(self, program: Program, voice: Voice, *, up: asyncio.Event, hurry: asyncio.Event) -> None:
        self.program = program
        #: Set once the program has said its ready line.
        self.ready = asyncio.Event()
        self._voice = voice
        self._up = up
        self._hurry = hurry
        self._stopping = False
        self._child: Child | None = None

    async def keep(self) -> None:
        """Run the program until `stop`; start it again whenever it ends by itself.

        Raises DidNotStart when an essential program ends before the whole stack is up.
        """
        deaths = 0
        while not self._stopping:
            began = time.monotonic()
            self._child = child = await Child.start(self.program, self._voice.line)
            watch = asyncio.create_task(self._pass_on_readiness(child))
            code = await child.wait()
            watch.cancel()
            self._child = None
            if self._stopping:
                return
            if self.program.essential and not self._up.is_set():
                raise DidNotStart(
                    self.program.name, how_it_ended(code), list(child.last_words), exit_code=2 if code == 2 else 1
                )
            deaths = deaths_in_row(deaths, timedelta(seconds=time.monotonic() - began))
            pause = pause_before_restart(deaths)
            self._voice.says(
                f"{self.program.name} {how_it_ended(code)}: starting it again in {pause.total_seconds():g} s"
            )
            await asyncio.sleep(pause.total_seconds())

    async def stop(self) -> None:
        """Stop the program for good; returns when it is dead."""
        self._stopping = True
        if self._child is not None:
            await self._child.stop(self._hurry)

    async def _pass_on_readiness(self, child: Child) -> None:
        await child.ready.wait()
        self.ready.set()
