"""flow.map and flow.race run flows inside a node."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from document_maker import flow, node
from scripted_nodes import Gate, run, script, told

from schemas.json import JSONValue
from schemas.outcome import ErrorKind, Failed, Succeeded
from schemas.run import EventType
from workers.engine.sink import MemorySink
from workers.nodes.node import NodeCall, node_error


async def double(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
    if call.inputs["item"] == "bad":
        raise node_error(ErrorKind.USER, "can't double this")
    call.log("info", f"doubling {call.inputs['item']}")
    return {"output": call.inputs["item"] * 2}


async def never_end(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
    await asyncio.Event().wait()
    return {}


def mapping(**config: Any) -> dict[str, Any]:
    return flow(node("each", "flow.map", config={"node": {"node_type": "double", "config": {}}, **config}))


async def test_a_map_gathers_the_results_in_the_order_of_the_items() -> None:
    outcome = await run(mapping(), {"items": [3, 1, 2]}, registry=script(double=double))

    assert outcome == Succeeded(
        result={"results": [{"output": 6}, {"output": 2}, {"output": 4}], "errors": [], "succeeded": 3}
    )


async def test_a_map_over_nothing_gives_nothing() -> None:
    outcome = await run(mapping(), {"items": []}, registry=script(double=double))

    assert outcome == Succeeded(result={"results": [], "errors": [], "succeeded": 0})


async def test_an_item_may_come_under_another_name_and_a_flow_of_several_nodes_may_work_on_it() -> None:
    inner = {
        "nodes": [
            node("log"),
            node("say", "respond"),
        ],
        "connections": [{"from_node": "log", "from_port": "message", "to_node": "say", "to_port": "value"}],
    }

    outcome = await run(flow(node("each", "flow.map", config={"flow": inner, "as": "message"})), {"items": ["a", "b"]})

    assert isinstance(outcome, Succeeded)
    assert outcome.result == {"results": ["a", "b"], "errors": [], "succeeded": 2}


async def test_an_item_that_fails_stops_the_map_and_is_named() -> None:
    outcome = await run(mapping(), {"items": [1, "bad"]}, registry=script(double=double))

    assert isinstance(outcome, Failed)
    assert outcome.error.message == 'item 1, node "node": can\'t double this'
    assert (outcome.error.kind, outcome.error.node_id, outcome.error.details) == (ErrorKind.USER, "each", {"item": 1})


async def test_a_map_may_go_on_without_the_items_that_fail() -> None:
    outcome = await run(mapping(on_item_error="continue"), {"items": [1, "bad"]}, registry=script(double=double))

    assert isinstance(outcome, Succeeded)
    assert outcome.result == {
        "results": [{"output": 2}, None],
        "errors": [{"index": 1, "error": {"kind": "user_error", "message": 'item 1, node "node": can\'t double this'}}],
        "succeeded": 1,
    }


async def test_a_map_works_on_no_more_items_at_once_than_it_says() -> None:
    busy: list[int] = []
    most = 0

    async def count(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        nonlocal most
        busy.append(1)
        most = max(most, len(busy))
        await asyncio.sleep(0)
        busy.pop()
        return {}

    await run(mapping(max_parallel=3), {"items": list(range(20))}, registry=script(double=count))

    assert most == 3


async def test_the_results_of_a_map_have_a_limit() -> None:
    outcome = await run(mapping(max_output_bytes=30), {"items": [1, 2, 3]}, registry=script(double=double))

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.OUTPUT_EXCEEDED
    assert "the results are bigger than 30 bytes; raise max_output_bytes" in outcome.error.message


async def test_what_an_inner_node_logs_is_heard_under_the_name_of_the_outer_one() -> None:
    events = MemorySink()

    await run(mapping(), {"items": [5]}, registry=script(double=double), events=events)

    (log,) = [said for said in events.happenings if said.type is EventType.LOG]
    assert (log.node_id, log.data) == ("each", {"level": "info", "message": "doubling 5", "inner": "0/node"})
    assert {node_id for _, node_id in told(events)} == {"each"}


async def test_items_with_an_effect_outside_are_on_record_and_not_done_again() -> None:
    calls: list[JSONValue] = []

    async def effect(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        calls.append(call.inputs["item"])
        return {"output": call.inputs["item"]}

    events = MemorySink()
    registry = script(repeatable=False, double=effect)
    await run(mapping(max_parallel=1), {"items": [1, 2, 3]}, registry=registry, events=events)
    second = next(index for index, said in enumerate(events.happenings) if said.data.get("part") == 1)
    calls.clear()

    outcome = await run(
        mapping(max_parallel=1), {"items": [1, 2, 3]}, registry=registry, past=events.happenings[: second + 1]
    )

    assert calls == [3]
    assert isinstance(outcome, Succeeded)
    assert outcome.result == {"results": [{"output": 1}, {"output": 2}, {"output": 3}], "errors": [], "succeeded": 3}


def race(**flows: str) -> dict[str, Any]:
    inner = {name: {"nodes": [node("n", node_type)]} for name, node_type in flows.items()}
    return flow(node("race", "flow.race", config={"flows": inner}))


async def fail(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
    raise node_error(ErrorKind.UPSTREAM, "away")


async def win(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
    return {"output": "won"}


async def test_the_first_flow_that_succeeds_wins_and_the_others_have_stopped() -> None:
    gate = Gate()

    async def win_late(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        await gate.entered.wait()
        return {"output": "won"}

    outcome = await run(race(slow="gate", bad="fail", good="win"), registry=script(gate=gate, fail=fail, win=win_late))

    assert outcome == Succeeded(result={"output": {"output": "won"}, "winner": "good"})
    assert gate.cancelled


async def test_a_race_that_nobody_wins_fails_and_says_why() -> None:
    outcome = await run(race(a="fail", b="fail"), registry=script(fail=fail))

    assert isinstance(outcome, Failed)
    assert outcome.error.message == 'no flow of the race succeeded: "a", node "n": away; "b", node "n": away'
    assert outcome.error.kind is ErrorKind.UPSTREAM


async def test_a_node_with_flows_inside_that_is_stopped_leaves_nothing_running() -> None:
    gate = Gate()
    raw = flow(node("each", "flow.map", config={"node": {"node_type": "gate"}}))
    running = asyncio.create_task(run(raw, {"items": [1]}, registry=script(gate=gate)))
    await gate.entered.wait()

    running.cancel()

    await asyncio.wait([running])
    assert running.cancelled()
    assert gate.cancelled
