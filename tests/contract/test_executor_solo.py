"""Nodes that run alone, on every executor: wherever a run executes, its nodes may have sandboxes of their own."""

from __future__ import annotations

from typing import Any

import pytest
from executor_places import Place, javascript
from test_executor import place, programs

from schemas.outcome import ErrorKind
from schemas.run import EventType
from workers.engine.sink import MemorySink

pytestmark = pytest.mark.timeout(180)
__all__ = ["place", "programs"]


def alone(code: str, node_id: str = "it", **config: Any) -> dict[str, Any]:
    return {**javascript(code, node_id, **config), "execution_mode": "sandbox"}


async def test_a_node_that_runs_alone_is_heard_and_gives_what_it_would_among_others(place: Place) -> None:
    first = "export default ({n}) => { console.log(`n is ${n}`); return {twice: n * 2}; }"
    second = "export default ({twice}) => ({thrice: twice * 1.5})"
    wire = {"from_node": "one", "from_port": "twice", "to_node": "two", "to_port": "twice"}
    events = MemorySink()

    order = place.order(alone(first, "one"), alone(second, "two"), connections=[wire], payload={"n": 14})

    assert (await place.result(order, events))["thrice"] == 42
    assert [(said.type, said.node_id) for said in events.happenings] == [
        (EventType.NODE_STARTED, "one"), (EventType.LOG, "one"), (EventType.NODE_COMPLETED, "one"),
        (EventType.NODE_STARTED, "two"), (EventType.NODE_COMPLETED, "two"),
    ]  # fmt: skip


async def test_an_error_and_a_limit_of_it_are_its_nodes_own(place: Place) -> None:
    thrown = await place.error(place.order(alone("export default () => { throw Error('mine'); }", "bad")))
    late = await place.error(
        place.order({**alone("export default () => { for (;;); }"), "resources": {"timeout_ms": 500}})
    )

    assert (thrown.kind, thrown.node_id) == (ErrorKind.USER, "bad")
    assert "mine" in thrown.message
    assert late.kind is ErrorKind.TIMED_OUT
    assert late.details is not None
    assert late.details["raise_with"] == "resources.timeout_ms"
