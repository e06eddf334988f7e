"""Commands and Python in a container that is one order's own: the worker sends it, and hears its lines and its end.

worker: {"do": "command" | "python", "order"}                                  once
runner: {"say": "ready"}, {"say": "output", "stream", "line"} (base64), {"say": "done", "outcome"}
"""

from __future__ import annotations

import asyncio
import os
import socket
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from schemas.errors import FloError
from schemas.json import JSONValue
from schemas.outcome import ErrorKind, RunError
from workers.runner import command_wire as wire
from workers.runner.channel import Channel
from workers.sandboxes.box.base import NO_EGRESS, NO_USAGE, Stopped
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.plain import open_plain


async def serve_commands(end: socket.socket, given: Mapping[str, Any]) -> None:
    """Serve the worker at `end` until it hangs up."""
    gone = asyncio.Event()
    place = await open_plain(environment=dict(os.environ), spares=0)
    tasks: set[asyncio.Task[None]] = set()

    def hear(message: dict[str, Any]) -> None:
        task = asyncio.ensure_future(_fill(place, channel, message))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    channel = await Channel.open(end, hear=hear, lost=lambda _: gone.set())
    channel.say({"say": "ready"})
    await gone.wait()


async def _fill(place: NamespaceBox, channel: Channel, message: dict[str, Any]) -> None:
    def on_output(stream: str, line: bytes) -> None:
        channel.say({"say": "output", "stream": stream, "line": b64encode(line).decode()})

    # What the order may reach is decided where this container was made.
    order = message["order"]
    try:
        if message["do"] == "python":
            python = wire.python_from(order, app="", egress=NO_EGRESS)
            outcome: JSONValue = wire.python_outcome_to(await place.run_python(python, on_output))
        else:
            command = wire.command_from(order, app="", egress=NO_EGRESS)
            outcome = wire.command_outcome_to(await place.run(command, on_output))
    except FloError as problem:
        error = RunError(kind=ErrorKind.INVALID_INPUT, message=str(problem))
        outcome = wire.command_outcome_to(Stopped(error=error, stdout=b"", stderr=b"", usage=NO_USAGE))
    channel.say({"say": "done", "outcome": outcome})
