"""Runs a chain of nodes with effects, in processes that kill themselves: at every step that could be the last one.

Called with a folder; prints one JSON line for each step: the nodes whose completion was on disk when the process died,
and how often each node's effect happened once another process had finished the run.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from schemas.flow import Connection, FlowDocument, Node
from schemas.json import JSONValue
from schemas.nodes.spec import NodeType
from schemas.outcome import Succeeded
from schemas.run import EventType, Happening
from workers.engine.drive import run_flow
from workers.engine.registry import Registered
from workers.nodes.guarded import open_client
from workers.nodes.node import NodeCall, NodeTools
from workers.testing import NoCode

NODES = 30
#: Made before the forks, as its TLS settings take longer to load than the whole flow to run.
HTTP = open_client(allow_private_network=False)
EFFECT = NodeType(
    type="test.effect", category="test", description="Leaves a line.", open_inputs=True, open_outputs=True,
    example={}, repeatable=False,
)  # fmt: skip
FLOW = FlowDocument(
    name="chain",
    nodes=tuple(Node(id=f"n{number}", node_type="test.effect") for number in range(NODES)),
    connections=tuple(
        Connection(from_node=f"n{number}", from_port="output", to_node=f"n{number + 1}", to_port="x")
        for number in range(NODES - 1)
    ),
)


class Disk:
    """Keeps happenings as the worker's log does: in memory, until a flush puts them on disk. Each call is a step."""

    def __init__(self, file: Path, step: Callable[[], None]) -> None:
        self._file = file
        self._step = step
        self._unsaid: list[Happening] = []

    def emit(self, happening: Happening) -> None:
        self._step()
        self._unsaid.append(happening)

    async def flush(self) -> None:
        self._step()
        with self._file.open("a") as out:
            out.writelines(json.dumps(asdict(said), default=str) + "\n" for said in self._unsaid)
        self._unsaid.clear()
        self._step()


class Effect:
    def __init__(self, file: Path, step: Callable[[], None]) -> None:
        self._file = file
        self._step = step

    async def run(self, call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        self._step()
        with self._file.open("a") as out:
            out.write(call.node_id + "\n")
        self._step()
        return {"output": call.node_id}


def read_back(file: Path) -> list[Happening]:
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [
        Happening(EventType(line["type"]), line["data"], line["node_id"], datetime.fromisoformat(line["time"]))
        for line in lines
    ]


def attempt(events: Path, effects: Path, dies_at: int | None) -> int:
    """Run the flow in a process of its own, which dies at this step; give how the process ended."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    left = dies_at

    def step() -> None:
        nonlocal left
        if left is not None:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    async def run() -> bool:
        tools = NodeTools(code=NoCode(), http=HTTP, app="a", run_id="r", attempt=1)
        registry = {EFFECT.type: Registered(EFFECT, Effect(effects, step))}
        past = read_back(events)
        outcome = await run_flow(FLOW, {}, tools=tools, events=Disk(events, step), past=past, registry=registry)
        return isinstance(outcome, Succeeded)

    os._exit(0 if asyncio.run(run()) else 3)


def main() -> None:
    folder, number, killed = Path(sys.argv[1]), 0, True
    while killed:
        events, effects = folder / f"{number}.events", folder / f"{number}.effects"
        killed = attempt(events, effects, number) == signal.SIGKILL
        on_disk = [said.node_id for said in read_back(events) if said.type is EventType.NODE_COMPLETED]
        ended = attempt(events, effects, None) if killed else 0
        happened = Counter(effects.read_text().split())
        print(json.dumps({"killed": killed, "ended": ended, "on_disk": on_disk, "happened": happened}), flush=True)
        number += 1


if __name__ == "__main__":
    main()
