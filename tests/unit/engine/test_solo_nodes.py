"""Nodes that run alone: what the engine does around them, and that being alone changes nothing of what they give."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from document_maker import flow, node, wire
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_nodes import Gate, read, script, told, tools

from schemas.json import JSONValue
from schemas.nodes.spec import SoloBounds
from schemas.outcome import ErrorKind, Failed, Outcome, Retry, RunError, Succeeded
from schemas.run import EventType, Happening
from workers.engine.drive import run_flow
from workers.engine.registry import BUILT_IN, Registered
from workers.engine.shared import Shared
from workers.engine.sink import EventSink, MemorySink
from workers.executors.base import Executor, RunOrder
from workers.executors.inline import InlineExecutor
from workers.executors.solo.places import Places, SoloRuns
from workers.nodes.node import NodeCall, node_error


class Here:
    """Executes one-node runs in this process, and remembers what they were."""

    def __init__(self, registry: Mapping[str, Registered]) -> None:
        self.orders: list[RunOrder] = []
        here = tools()
        self._inner = InlineExecutor(lambda _: here, registry={**BUILT_IN, **registry})

    async def run(self, order: RunOrder, events: EventSink) -> Outcome:
        self.orders.append(order)
        return await self._inner.run(order, events)

    async def aclose(self) -> None:
        return


class Ends:
    """An executor whose runs end as they are told, one after the other."""

    def __init__(self, *ends: Outcome) -> None:
        self._ends = list(ends)
        self.asked = 0

    async def run(self, order: RunOrder, events: EventSink) -> Outcome:
        self.asked += 1
        return self._ends.pop(0)

    async def aclose(self) -> None:
        return


def places(executor: Executor, *, most: int = 4, bounds: SoloBounds | None = None) -> SoloRuns:
    async def opened() -> Executor:
        return executor

    return SoloRuns(opened, Places(most), bounds=bounds or SoloBounds())


async def run(
    raw: Any,
    registry: Mapping[str, Registered],
    payload: JSONValue = None,
    *,
    executor: Executor | None = None,
    most: int = 4,
    bounds: SoloBounds | None = None,
    **more: Any,
) -> Outcome:
    solo = places(executor or Here(registry), most=most, bounds=bounds)
    given_tools = replace(tools(more.pop("code", None)), solo=solo)
    return await run_flow(
        read(raw, registry), payload, tools=given_tools, events=more.pop("events", MemorySink()),
        registry={**BUILT_IN, **registry}, **more,
    )  # fmt: skip


def alone(node_id: str, node_type: str = "debug.log", **more: Any) -> dict[str, Any]:
    return {**node(node_id, node_type, **more), "execution_mode": "sandbox"}


async def echo(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
    return {"output": dict(call.inputs), "attempt": call.attempt}


async def test_a_root_that_is_alone_gets_the_payload_as_among_others() -> None:
    raw = flow(node("a", "echo"))
    payload = {"x": 1, "": "a port without a name", "payload": "mine"}

    assert await run(flow(alone("a", "echo")), script(echo=echo), payload) == await run(raw, script(echo=echo), payload)


async def test_a_node_that_was_fed_with_nothing_does_not_take_the_payload_for_it() -> None:
    async def nothing(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        return {}

    raw = flow(node("n", "nothing"), alone("a", "echo"), wires=(wire("n.x", "a.x"),))

    outcome = await run(raw, script(echo=echo, nothing=nothing), {"secret": 1})

    assert outcome == Succeeded(result={"output": {}, "attempt": 1})


async def test_a_node_that_is_alone_is_tried_again_as_its_document_says() -> None:
    tries: list[int] = []

    async def flaky(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        tries.append(call.attempt)
        if call.attempt < 3:
            raise node_error(ErrorKind.UPSTREAM, "away", status=503)
        return {"output": call.attempt}

    events = MemorySink()
    raw = flow(alone("a", "flaky", retry_policy={"max_attempts": 3, "delay_ms": 0, "retry_on": [503]}))

    outcome = await run(raw, script(flaky=flaky), events=events)

    assert outcome == Succeeded(result={"output": 3})
    assert tries == [1, 2, 3]
    retried = [said for said in events.happenings if said.type is EventType.NODE_RETRYING]
    assert [said.data["error"]["details"] for said in retried] == [{"status": 503}, {"status": 503}]  # type: ignore[index, call-overload]


async def test_what_it_says_is_heard_in_order_between_its_start_and_its_end() -> None:
    async def chatty(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        call.log("info", "one")
        call.progress(50.0)
        call.data("port", "two")
        return {"output": 1}

    events = MemorySink()

    await run(flow(alone("a", "chatty")), script(chatty=chatty), events=events)

    assert told(events) == [
        ("node_started", "a"), ("log", "a"), ("progress", "a"), ("data", "a"), ("node_completed", "a"),
    ]  # fmt: skip


async def test_no_more_nodes_are_alone_at_once_than_there_are_places_and_none_is_dropped() -> None:
    events = MemorySink()
    at_once, most = 0, 0

    async def counted(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return {"output": 1}

    raw = flow(*(alone(f"n{index}", "counted") for index in range(10)))
    outcome = await run(raw, script(counted=counted), events=events, most=2)

    assert isinstance(outcome, Succeeded)
    assert most == 2
    waited = [said for said in events.happenings if said.type is EventType.LOG]
    assert len(waited) == 8
    assert waited[0].data["message"] == (
        "waits for a place: 2 nodes run alone on this worker now, and no more may (FLO_MAX_SOLO_NODES)"
    )


async def test_the_wait_for_a_place_is_none_of_a_nodes_own_time() -> None:
    gate = Gate()

    async def quick(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        return {"output": "in time"}

    holds, waits = alone("a", "gate"), alone("b", "quick", config={"timeout_ms": 20})
    running = asyncio.create_task(run(flow(holds, waits), script(gate=gate, quick=quick), most=1))
    await gate.entered.wait()
    await asyncio.sleep(0.1)  # longer than the node's limit: what is to be shown is that this does not count
    gate.opened.set()

    assert isinstance(await running, Succeeded)


async def test_a_node_that_waits_for_a_place_can_be_cancelled_and_leaves_none_taken() -> None:
    gate = Gate()
    executor = Here(script(gate=gate))
    solo = places(executor, most=1)
    given_tools = replace(tools(), solo=solo)
    document = read(flow(alone("a", "gate"), alone("b", "gate")), script(gate=gate))
    running = asyncio.create_task(
        run_flow(document, None, tools=given_tools, events=MemorySink(), registry={**BUILT_IN, **script(gate=gate)})
    )
    await gate.entered.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    again = MemorySink()

    outcome = await run_flow(
        read(flow(alone("c"))), {"message": "m"}, tools=given_tools, events=again, registry=BUILT_IN
    )

    assert gate.cancelled
    assert len(executor.orders) == 2  # the one that waited never began
    assert isinstance(outcome, Succeeded)


async def test_a_time_out_in_its_resources_holds_and_is_named() -> None:
    gate = Gate()
    raw = flow({**alone("a", "gate"), "resources": {"timeout_ms": 20}})

    outcome = await run(raw, script(gate=gate))

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.TIMED_OUT
    assert outcome.error.message == "took longer than its limit of 0.02 s; raise resources.timeout_ms if it needs more"
    assert outcome.error.details == {"limit_ms": 20, "raise_with": "resources.timeout_ms"}


async def test_a_sandbox_that_is_lost_is_replaced_once_without_a_policy() -> None:
    lost = Retry(after=timedelta(0), reason="the machine was turned off")
    twice = Ends(lost, lost)
    events = MemorySink()

    outcome = await run(flow(alone("a")), {}, {"message": "m"}, executor=twice, events=events)

    assert twice.asked == 2
    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.INTERNAL
    assert "the node's own sandbox was lost: the machine was turned off (twice" in outcome.error.message


async def test_one_that_says_nothing_of_its_node_has_not_succeeded() -> None:
    outcome = await run(flow(alone("a")), {}, {"message": "m"}, executor=Ends(Succeeded(result={"forged": True})))

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.INTERNAL


@pytest.mark.parametrize("limit", [None, "much", [1]])
async def test_a_sandbox_that_was_made_to_lie_about_its_memory_is_not_believed(limit: Any) -> None:
    lie = RunError(
        kind=ErrorKind.MEMORY_EXCEEDED, message="m", details={"raise_with": "FLO_BOX_MEMORY_MB", "limit": limit}
    )
    bounds = SoloBounds(memory_mb=512)

    outcome = await run(flow(alone("a")), {}, {"message": "m"}, executor=Ends(Failed(error=lie)), bounds=bounds)

    assert isinstance(outcome, Failed)
    assert outcome.error.details == {"limit": 512, "raise_with": "resources.memory_mb"}
    assert "its limit of 512 MB" in outcome.error.message


async def test_bounds_that_were_lowered_since_the_push_hold_at_the_start() -> None:
    raw = flow({**alone("a"), "resources": {"memory_mb": 1024}})

    outcome = await run(raw, {}, {"message": "m"}, bounds=SoloBounds(memory_mb=512))

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.FORBIDDEN
    assert outcome.error.message.startswith("memory_mb is 1024, but a node that runs alone may have at most 512 here")


async def test_where_nothing_gives_sandboxes_the_node_fails_and_says_so() -> None:
    outcome = await run_flow(
        read(flow(alone("a"))), {"message": "m"}, tools=tools(), events=MemorySink(), registry=BUILT_IN
    )

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.FORBIDDEN


async def test_its_result_is_kept_and_given_again_as_that_of_the_same_node_among_others() -> None:
    calls: list[int] = []

    async def counted(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        calls.append(call.attempt)
        return {"output": len(calls)}

    shared, cache = Shared(), {"ttl_ms": 60_000}
    await run(flow(alone("a", "counted", cache=cache)), script(counted=counted), {"x": 1}, shared=shared)
    inline = await run(flow(node("a", "counted", cache=cache)), script(counted=counted), {"x": 1}, shared=shared)

    assert calls == [1]
    assert inline == Succeeded(result={"output": 1})


async def test_the_parts_that_an_earlier_attempt_has_done_are_not_done_again() -> None:
    seen: list[JSONValue] = []

    async def effect(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        seen.append(call.inputs["item"])
        return {"output": call.inputs["item"]}

    works = script(repeatable=False, effect=effect)
    config = {"node": {"node_type": "effect"}, "items": [10, 20, 30], "max_parallel": 1}
    raw = flow(alone("a", "flow.map", config=config))
    past = [
        Happening(EventType.NODE_STARTED, {"attempt": 1}, "a"),
        Happening(EventType.DATA, {"port": "results", "part": 0, "value": {"output": 10}}, "a"),
    ]
    events = MemorySink()

    outcome = await run(raw, works, past=past, events=events)

    assert isinstance(outcome, Succeeded)
    assert seen == [20, 30]
    assert outcome.result["results"] == [{"output": 10}, {"output": 20}, {"output": 30}]  # type: ignore[index, call-overload]
    parts = [said.data["part"] for said in events.happenings if "part" in said.data]
    assert parts == [1, 2]


async def test_nodes_inside_a_node_have_places_of_their_own() -> None:
    executor = Here(script(echo=echo))
    config = {"node": {"node_type": "echo", "execution_mode": "sandbox"}, "items": [1, 2, 3]}

    await run(flow(node("a", "flow.map", config=config)), script(echo=echo), executor=executor, most=1)

    assert len(executor.orders) == 3


async def test_inside_a_node_that_is_alone_no_node_takes_another_place() -> None:
    executor = Here(script(echo=echo))
    config = {"node": {"node_type": "echo", "execution_mode": "sandbox"}, "items": [1, 2, 3]}

    outcome = await run(flow(alone("a", "flow.map", config=config)), script(echo=echo), executor=executor, most=1)

    assert isinstance(outcome, Succeeded)
    assert len(executor.orders) == 1


async def test_a_node_that_is_stopped_is_stopped_in_its_sandbox() -> None:
    gate = Gate()

    async def fails(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        await gate.entered.wait()
        raise node_error(ErrorKind.USER, "no")

    outcome = await run(flow(alone("a", "gate"), node("b", "fails")), script(gate=gate, fails=fails))

    assert isinstance(outcome, Failed)
    assert gate.cancelled


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[dict[str, Any]], tuple[dict[str, Any], ...], list[str]]:
    """Draw nodes, connections from earlier ones to later ones, and where each node runs."""
    size = draw(st.integers(1, 5))
    types = [draw(st.sampled_from(["echo", "fails", "sums", "respond"])) for _ in range(size)]
    rules = [draw(st.sampled_from([None, "all_done", "one_failed", "none_failed"])) for _ in range(size)]
    pairs = [(one, other) for one in range(size) for other in range(one + 1, size)]
    wired = draw(st.lists(st.sampled_from(pairs), unique_by=lambda pair: pair[1], max_size=6)) if pairs else []
    nodes = [node(f"n{index}", types[index], trigger_rule=rules[index]) for index in range(size)]
    wires = tuple(
        wire(f"n{one}.{'value' if types[one] == 'respond' else 'output'}", f"n{other}.value") for one, other in wired
    )
    return nodes, wires, [draw(st.sampled_from(["inline", "sandbox", "pod"])) for _ in range(size)]


@settings(max_examples=50, deadline=None)
@given(
    graph=graphs(),
    payload=st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3) | st.none(), max_size=3),
    on_error=st.sampled_from(["StopWorkflow", "ContinueOnError"]),
)
def test_any_split_into_alone_and_among_others_gives_the_same(graph: Any, payload: Any, on_error: str) -> None:
    nodes, wires, split = graph
    mixed = [{**each, "execution_mode": place} for each, place in zip(nodes, split, strict=True)]
    one_by_one = {"strategy": "sequential", "on_error": on_error}

    async def fails(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        raise node_error(ErrorKind.USER, "no", seen=dict(call.inputs))

    async def sums(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        return {"output": [dict(call.inputs), call.attempt, call.node_id]}

    async def story(these: list[dict[str, Any]]) -> tuple[Outcome, list[Any]]:
        events, works = MemorySink(), script(echo=echo, fails=fails, sums=sums)
        outcome = await run(flow(*these, wires=wires, settings=one_by_one), works, payload, events=events)
        return outcome, _story(events)

    assert asyncio.run(story(mixed)) == asyncio.run(story(nodes))


def _story(events: MemorySink) -> list[Any]:
    return [
        (said.type, said.node_id, {key: value for key, value in said.data.items() if key != "duration_ms"})
        for said in events.happenings
    ]
