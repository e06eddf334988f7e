"""A box without walls: the test is the program inside, and says what it likes."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from schemas.catalog import load_catalog
from schemas.flow import FlowDocument
from schemas.outcome import ErrorKind, RunError
from schemas.settings import ExecutionMode
from schemas.validation import read_document
from workers.executors.base import RunOrder
from workers.executors.boxed.desk import Services
from workers.executors.boxed.engine_box import EngineBox
from workers.preparation.preparer import NoPreparer
from workers.sandboxes.box.base import NO_USAGE, CommandOutcome, Exited, Stopped
from workers.sandboxes.box.egress import PUBLIC_EGRESS
from workers.sandboxes.commands import NoBox
from workers.tenure import Holds, without_end

_KILLED = Stopped(
    error=RunError(kind=ErrorKind.CANCELLED, message="was killed, as its owner asked"), stdout=b"", stderr=b"",
    usage=NO_USAGE,
)  # fmt: skip


_HELD = without_end()


class TestProgram:
    """What a box's owner holds of it."""

    __test__ = False

    def __init__(self) -> None:
        self.channel, self.inside = socket.socketpair()
        self.channel.setblocking(False)
        self._over: asyncio.Future[CommandOutcome] = asyncio.get_running_loop().create_future()

    def kill(self) -> None:
        self.end(_KILLED)

    def end(self, how: CommandOutcome) -> None:
        """End as a box does: everything in it is dead, and its socket closed."""
        if not self._over.done():
            with suppress(OSError):
                self.inside.shutdown(socket.SHUT_RDWR)  # for the test's own end, too
            self.inside.close()
            self._over.set_result(how)

    async def wait(self) -> CommandOutcome:
        ended = await asyncio.shield(self._over)
        self.channel.close()
        return ended


def said(type_: str, node_id: str | None = "a", **data: Any) -> dict[str, Any]:
    return {"type": type_, "data": data, "node_id": node_id, "time": 0}


def exited(code: int, stderr: bytes = b"") -> Exited:
    return Exited(code=code, stdout=b"", stderr=stderr, files={}, missing={}, usage=NO_USAGE)


@dataclass
class Inside:
    """The test's hands inside the box."""

    program: TestProgram
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def say(self, **message: Any) -> None:
        self.raw(json.dumps(message).encode() + b"\n")

    def raw(self, data: bytes) -> None:
        self.writer.write(data)

    def event(self, run: int, type_: str, node_id: str | None = "a", **data: Any) -> None:
        self.say(say="events", run=run, events=[said(type_, node_id, **data)])

    def done(self, run: int, outcome: dict[str, Any], *events: dict[str, Any]) -> None:
        self.say(say="done", run=run, events=events, outcome=outcome)

    async def hear(self, do: str) -> dict[str, Any]:
        """Give the next message of this kind."""
        while True:
            message: dict[str, Any] = json.loads(await self.reader.readline())
            if message["do"] == do:
                return message


@asynccontextmanager
async def engine_box(*, holds: Holds = _HELD, **services: Any) -> AsyncIterator[tuple[EngineBox, Inside]]:
    program = TestProgram()
    reader, writer = await asyncio.open_connection(sock=program.inside.dup())
    inside = Inside(program, reader, writer)
    inside.say(say="ready")
    given = Services(**{"preparer": NoPreparer(), "commands": NoBox()} | services)
    box = await EngineBox.start(program, given, PUBLIC_EGRESS, holds)
    try:
        yield box, inside
    finally:
        await box.aclose()
        writer.close()


def document(**changes: Any) -> FlowDocument:
    raw = {"name": "flow", "nodes": [{"id": "a", "node_type": "debug.log", "config": {"message": "m"}}]} | changes
    catalog = load_catalog(ExecutionMode.SANDBOX_CODE_AND_PROCESS)
    found, _ = read_document(raw | {"connections": []}, catalog=catalog, max_inline_http=timedelta(seconds=300))
    return found


def order(**changes: Any) -> RunOrder:
    return replace(
        RunOrder(
            run_id="run_1", app="acme", flow="flow", version=1, attempt=1, document=document(), payload={"n": 1},
            backend_config={},
        ),
        **changes,
    )  # fmt: skip
