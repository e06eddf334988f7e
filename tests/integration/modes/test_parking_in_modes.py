"""A run that waits leaves its worker and its box in every mode, and goes on in another."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.outcome import ChildNode, Parked, Succeeded, WaitKind
from schemas.run import EventType, Happening
from schemas.settings import ExecutionMode
from tests.integration.modes.in_mode import SANDBOXED, opened
from workers.engine.sink import MemorySink

_FLOW = {
    "name": "asks",
    "nodes": [
        {"id": "before", "node_type": "code.javascript", "config": {"code": "export default () => ({n: 1})"}},
        {"id": "ask", "node_type": "wait.approval", "config": {"message": "go on?"}},
        {"id": "after", "node_type": "code.javascript", "config": {"code": "export default (i) => ({by: i.by})"}},
    ],
    "connections": [
        {"from_node": "before", "from_port": "n", "to_node": "ask", "to_port": "after"},
        {"from_node": "ask", "from_port": "by", "to_node": "after", "to_port": "by"},
    ],
}


@pytest.mark.parametrize("mode", SANDBOXED)
async def test_a_run_parks_and_another_attempt_goes_on_with_the_answer(mode: ExecutionMode, home: Path) -> None:
    async with opened(mode, home, FLO_PUBLIC_URL="https://flo.example.com/") as here:
        first, second = MemorySink(), MemorySink()
        order = here.order_flow(_FLOW)

        parked = await here.run(order, first)
        assert isinstance(parked, Parked), parked
        (wait,) = parked.waits
        answer = {"waitpoint": wait.waitpoint, "answer": {"approved": True, "by": "bo", "comment": ""}}
        past = [*first.happenings, Happening(EventType.RUN_RESUMED, answer)]
        outcome = await here.run(here.order_flow(_FLOW, attempt=2, past=past, run_id=order.run_id), second)

    assert (wait.kind, wait.message) == (WaitKind.APPROVAL, "go on?")
    assert wait.url is not None
    assert wait.url.startswith("https://flo.example.com/api/v1/waitpoints/")
    assert outcome == Succeeded(result={"output": {"by": "bo"}, "by": "bo"})
    assert "before" not in [said.node_id for said in second.happenings]


@pytest.mark.parametrize("mode", SANDBOXED)
async def test_a_run_that_calls_another_parks_with_what_that_gets(mode: ExecutionMode, home: Path) -> None:
    async with opened(mode, home) as here:
        parked = await here.run(here.order("flow.call", {"flow": "other", "mode": "run"}, payload={"n": 1}))

    assert isinstance(parked, Parked), parked
    (wait,) = parked.waits
    assert wait.child is not None
    assert (wait.child.flow, wait.child.payload) == ("other", {"n": 1})


@pytest.mark.parametrize("mode", SANDBOXED)
async def test_a_node_in_a_pod_parks_its_run_with_what_it_is_given(mode: ExecutionMode, home: Path) -> None:
    say = {"id": "say", "node_type": "debug.log", "execution_mode": "pod"}
    async with opened(mode, home) as here:
        parked = await here.run(here.order_flow({"name": "pod", "nodes": [say]}, payload={"message": "m"}))

    assert isinstance(parked, Parked), parked
    (wait,) = parked.waits
    assert wait.child == ChildNode(
        given={"attempt": 1, "payload": {"message": "m"}, "brought": None, "kept": []}
    )  # fmt: skip
