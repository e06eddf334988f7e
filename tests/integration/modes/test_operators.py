"""What an operator has installed works in every mode: custom nodes run in the worker, and its hooks hear there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from in_mode import opened
from pydantic import Field

from schemas.custom import CustomNode
from schemas.errors import FloError
from schemas.json import JSONValue
from schemas.nodes.spec import NodeConfig, NodeType, Port
from schemas.outcome import ErrorKind, Failed, Outcome, RunError, Succeeded
from schemas.run import EventType
from schemas.settings import ExecutionMode
from workers.engine.hooks import Hook, NodeSeen, RunSeen
from workers.engine.sink import MemorySink
from workers.nodes.node import NodeCall, node_error

_WORKER = os.getpid()


class _Config(NodeConfig):
    marks: int = Field(default=1, ge=0, le=10)


class Shout:
    """Says it louder, and says where."""

    spec: ClassVar = NodeType(
        type="text.shout",
        category="text",
        description="Says a text louder.",
        inputs=(Port(name="text", type="string", required=True, description="what to say"),),
        outputs=(Port(name="loud", type="string", description="the same, louder"),),
        config=_Config,
        example={"marks": 2},
    )

    async def run(self, call: NodeCall[_Config]) -> Mapping[str, JSONValue]:
        call.progress(50, "shouting")
        match call.inputs["text"]:
            case "fail":
                raise node_error(ErrorKind.UPSTREAM, "nobody listens")
            case "crash":
                raise ZeroDivisionError("oops")
            case "wait":
                await asyncio.sleep(3600)
        return {"loud": str(call.inputs["text"]).upper() + "!" * call.config.marks, "pid": os.getpid()}


class Ear(Hook):
    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    async def before_flow(self, run: RunSeen, payload: JSONValue) -> None:
        self.heard.append(("before flow", payload))

    async def after_flow(self, run: RunSeen, outcome: Outcome) -> None:
        self.heard.append(("after flow", type(outcome)))

    async def before_node(self, node: NodeSeen, inputs: Mapping[str, JSONValue]) -> None:
        self.heard.append(("before node", (node.node_id, node.node_type)))

    async def after_node(self, node: NodeSeen, result: Mapping[str, JSONValue] | RunError) -> None:
        self.heard.append(("after node", result.kind if isinstance(result, RunError) else dict(result)["loud"]))


@pytest.fixture
def ear(monkeypatch: pytest.MonkeyPatch) -> Ear:
    """The package that the operator has installed; gives its hook."""
    hook = Ear()
    for place in ("schemas.catalog", "workers.engine.registry"):
        monkeypatch.setattr(f"{place}.installed_nodes", lambda: (CustomNode(type=Shout.spec, work=Shout),))
    monkeypatch.setattr("workers.executors.openings.load_hooks", lambda: (hook,))
    return hook


MODES = pytest.mark.parametrize("mode", list(ExecutionMode))


@MODES
async def test_a_custom_node_runs_in_the_worker_and_its_hook_hears_of_it(
    mode: ExecutionMode, ear: Ear, tmp_path: Path
) -> None:
    events = MemorySink()
    async with opened(mode, tmp_path) as worker:
        outcome = await worker.run(worker.order("text.shout", {"marks": 2}, payload={"text": "hello"}), events)

    assert outcome == Succeeded(result={"loud": "HELLO!!", "pid": _WORKER})
    assert ear.heard == [
        ("before flow", {"text": "hello"}),
        ("before node", ("it", "text.shout")),
        ("after node", "HELLO!!"),
        ("after flow", Succeeded),
    ]
    assert [said.data for said in events.happenings if said.type is EventType.PROGRESS] == [
        {"percent": 50, "message": "shouting"}
    ]


@MODES
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("fail", (ErrorKind.UPSTREAM, "nobody listens")),
        ("crash", (ErrorKind.INTERNAL, "the node type text.shout crashed: ZeroDivisionError: oops")),
    ],
)
async def test_what_goes_wrong_in_it_is_told_alike(
    mode: ExecutionMode, text: str, told: tuple[ErrorKind, str], ear: Ear, tmp_path: Path
) -> None:
    async with opened(mode, tmp_path) as worker:
        outcome = await worker.run(worker.order("text.shout", {}, payload={"text": text}))

    assert isinstance(outcome, Failed)
    assert ((outcome.error.kind, outcome.error.message), outcome.error.node_id) == (told, "it")
    assert ("after flow", Failed) in ear.heard


@MODES
async def test_its_time_limit_holds(mode: ExecutionMode, ear: Ear, tmp_path: Path) -> None:
    async with opened(mode, tmp_path) as worker:
        error = await worker.error("text.shout", {"timeout_ms": 300}, payload={"text": "wait"})

    assert error.kind is ErrorKind.TIMED_OUT


async def test_its_config_is_checked_before_anything_runs(ear: Ear, tmp_path: Path) -> None:
    async with opened(ExecutionMode.SANDBOX_CODE_AND_PROCESS, tmp_path) as worker:
        with pytest.raises(FloError, match="must be at most 10; given 11"):
            worker.order("text.shout", {"marks": 11})
