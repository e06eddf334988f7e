"""Runs whole flows with nodes whose work the test decides."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from document_maker import code, flow, node, wire
from scripted_nodes import Gate, ScriptedCode, run, script, told

from schemas.json import JSONValue
from schemas.outcome import ErrorKind, Failed, Retry, RunError, Succeeded
from schemas.run import EventType, Happening
from workers.engine.sink import MemorySink
from workers.nodes.node import NodeCall, node_error
from workers.sandboxes.base import CodeFailed, CodeReturned


async def pass_on(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
    return {"output": call.node_id, "attempt": call.attempt, "inputs": dict(call.inputs)}


async def fail(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
    raise node_error(ErrorKind.USER, "this node always fails")


async def fail_twice(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
    return await (fail if call.attempt < 3 else pass_on)(call)


async def crash(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
    raise ZeroDivisionError("a bug")


async def give_nonsense(call: NodeCall[Any]) -> Any:
    return 3


async def cancel_itself(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
    raise asyncio.CancelledError


async def never_end(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
    await asyncio.Event().wait()
    return {}


class SlowDisk(MemorySink):
    """Is durable only when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.durable = asyncio.Event()

    async def flush(self) -> None:
        self.asked.set()
        await self.durable.wait()


class BrokenDisk(MemorySink):
    async def flush(self) -> None:
        raise OSError("disk full")


async def test_code_feeds_a_log_node() -> None:
    events = MemorySink()
    sandbox = ScriptedCode(lambda order: CodeReturned({"text": f"hello {order.inputs['name']}"}))
    raw = flow(code("greet", timeout_ms=5), node("say"), wires=(wire("greet.text", "say.message"),))

    outcome = await run(raw, {"name": "bo"}, events=events, code=sandbox)

    assert outcome == Succeeded(result={"message": "hello bo"})
    assert told(events) == [
        ("node_started", "greet"),
        ("log", "greet"),
        ("node_completed", "greet"),
        ("node_started", "say"),
        ("log", "say"),
        ("node_completed", "say"),
    ]
    assert sandbox.orders[0].timeout.total_seconds() == 0.005
    assert sandbox.orders[0].app == "app"


async def test_what_code_returns_is_the_port_output_and_each_key_a_port_too() -> None:
    sandbox = ScriptedCode(lambda order: CodeReturned({"a": 1, "output": 2}))

    assert await run(flow(code("x")), code=sandbox) == Succeeded(result={"a": 1, "output": {"a": 1, "output": 2}})


async def test_nodes_that_do_not_wait_for_each_other_run_at_the_same_time() -> None:
    left, right = Gate(), Gate()
    registry = script(left=left, right=right)
    running = asyncio.create_task(run(flow(node("a", "left"), node("b", "right")), registry=registry))

    await asyncio.gather(left.entered.wait(), right.entered.wait())
    right.opened.set()
    left.opened.set()

    assert await running == Succeeded(result={"a": {"output": "a"}, "b": {"output": "b"}})


async def test_no_more_nodes_run_at_once_than_the_settings_allow() -> None:
    left, right = Gate(), Gate()
    raw = flow(node("a", "left"), node("b", "right"), settings={"max_parallel_nodes": 1})
    running = asyncio.create_task(run(raw, registry=script(left=left, right=right)))
    await left.entered.wait()

    assert not right.entered.is_set()

    left.opened.set()
    right.opened.set()
    assert isinstance(await running, Succeeded)


async def test_a_failed_node_stops_its_siblings_and_waits_until_they_have_stopped() -> None:
    events, sibling = MemorySink(), Gate()
    raw = flow(node("slow", "sibling"), node("bad", "fail"))

    outcome = await run(raw, registry=script(sibling=sibling, fail=fail), events=events)

    error = RunError(kind=ErrorKind.USER, message="this node always fails", node_id="bad")
    assert outcome == Failed(error=error)
    assert sibling.cancelled
    assert told(events, EventType.NODE_FAILED) == [("node_failed", "bad"), ("node_failed", "slow")]
    assert events.happenings[-1].data["error"] == {
        "kind": "cancelled", "message": 'stopped: node "bad" failed', "node_id": "slow",
    }  # fmt: skip


async def test_continue_on_error_goes_on_without_the_missing_port() -> None:
    raw = flow(
        node("bad", "fail"), node("next", "pass_on"),
        wires=(wire("bad.output", "next.x"),), settings={"on_error": "ContinueOnError"},
    )  # fmt: skip

    outcome = await run(raw, registry=script(fail=fail, pass_on=pass_on))

    assert outcome == Succeeded(result={"output": "next", "attempt": 1, "inputs": {}})


async def test_retry_workflow_runs_the_whole_flow_again_and_says_so() -> None:
    events = MemorySink()
    raw = flow(
        node("first", "pass_on"), node("flaky", "fail_twice"),
        wires=(wire("first.output", "flaky.x"),), settings={"on_error": {"RetryWorkflow": {"max_attempts": 3}}},
    )  # fmt: skip

    outcome = await run(raw, registry=script(pass_on=pass_on, fail_twice=fail_twice), events=events)

    assert outcome == Succeeded(result={"output": "flaky", "attempt": 3, "inputs": {"x": "first"}})
    assert told(events, EventType.NODE_COMPLETED) == [("node_completed", "first")] * 3 + [("node_completed", "flaky")]
    messages = [said.data["message"] for said in events.happenings if said.type is EventType.LOG]
    assert messages == [
        'the flow starts over (round 2), as node "flaky" failed: this node always fails',
        'the flow starts over (round 3), as node "flaky" failed: this node always fails',
    ]


async def test_a_retried_node_tells_each_failure_and_its_pause() -> None:
    events = MemorySink()
    policy = {"max_attempts": 3, "delay_ms": 1, "backoff_multiplier": 2}

    outcome = await run(
        flow(node("flaky", "fail_twice", retry_policy=policy)), registry=script(fail_twice=fail_twice), events=events
    )

    assert isinstance(outcome, Succeeded)
    retries = [said.data for said in events.happenings if said.type is EventType.NODE_RETRYING]
    assert [(data["attempt"], data["delay_ms"]) for data in retries] == [(1, 1), (2, 2)]


async def test_a_lost_sandbox_is_forgiven_once() -> None:
    answers = iter([CodeFailed(RunError(kind=ErrorKind.LOST, message="the host died")), CodeReturned(1)])

    outcome = await run(flow(code("a")), code=ScriptedCode(lambda order: next(answers)))

    assert outcome == Succeeded(result={"output": 1})


async def test_a_node_that_takes_too_long_names_its_limit_and_the_fix() -> None:
    outcome = await run(flow(node("a", "never_end", config={"timeout_ms": 1})), registry=script(never_end=never_end))

    assert isinstance(outcome, Failed)
    assert (outcome.error.kind, outcome.error.node_id) == (ErrorKind.TIMED_OUT, "a")
    assert outcome.error.message == (
        "took longer than its limit of 0.001 s; raise timeout_ms in its config if it needs more"
    )


async def test_a_flow_that_takes_too_long_is_stopped_and_names_its_limit_and_the_fix() -> None:
    gate = Gate()

    outcome = await run(flow(node("a", "gate"), settings={"max_execution_time_ms": 1}), registry=script(gate=gate))

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.TIMED_OUT
    assert "limit of 0.001 s; raise settings.max_execution_time_ms" in outcome.error.message
    assert gate.cancelled or not gate.entered.is_set()


async def test_a_cancelled_run_ends_only_after_its_nodes_have() -> None:
    gate, events = Gate(), MemorySink()
    running = asyncio.create_task(run(flow(node("a", "gate")), registry=script(gate=gate), events=events))
    await gate.entered.wait()

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert gate.cancelled
    assert told(events) == [("node_started", "a"), ("node_failed", "a")]


async def test_a_run_that_is_cancelled_twice_still_waits_for_its_nodes() -> None:
    gate = Gate()
    running = asyncio.create_task(run(flow(node("a", "gate")), registry=script(gate=gate)))
    await gate.entered.wait()

    running.cancel()
    await asyncio.sleep(0)
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert gate.cancelled


@pytest.mark.parametrize("work", [crash, cancel_itself, give_nonsense])
async def test_a_node_type_with_a_bug_fails_its_node_and_nothing_else(work: Any) -> None:
    outcome = await run(flow(node("a", "buggy")), registry=script(buggy=work))

    assert isinstance(outcome, Failed)
    assert (outcome.error.kind, outcome.error.node_id) == (ErrorKind.INTERNAL, "a")
    assert "the node type buggy crashed" in outcome.error.message


async def test_an_effect_outside_is_on_record_before_anything_builds_on_it() -> None:
    disk, after = SlowDisk(), Gate()
    registry = {**script(repeatable=False, effect=pass_on), **script(after=after)}
    raw = flow(node("a", "effect"), node("b", "after"), wires=(wire("a.output", "b.x"),))
    running = asyncio.create_task(run(raw, registry=registry, events=disk))
    await disk.asked.wait()

    assert told(disk) == [("node_started", "a"), ("node_completed", "a")]
    assert not after.entered.is_set()

    disk.durable.set()
    after.opened.set()
    assert isinstance(await running, Succeeded)


async def test_a_run_whose_happenings_can_not_be_stored_is_attempted_again() -> None:
    raw = flow(node("a", "effect"), node("b", "gate"))

    outcome = await run(
        raw, registry={**script(repeatable=False, effect=pass_on), **script(gate=Gate())}, events=BrokenDisk()
    )

    assert isinstance(outcome, Retry)
    assert "disk full" in outcome.reason


async def test_what_an_earlier_attempt_completed_is_not_repeated() -> None:
    events = MemorySink()
    past = [
        Happening(EventType.NODE_STARTED, {"attempt": 1}, "a"),
        Happening(EventType.NODE_COMPLETED, {"outputs": {"output": "from before"}, "attempt": 1}, "a"),
        Happening(EventType.NODE_STARTED, {"attempt": 1}, "b"),
    ]
    raw = flow(node("a", "fail"), node("b", "pass_on"), wires=(wire("a.output", "b.x"),))

    outcome = await run(raw, registry=script(fail=fail, pass_on=pass_on), events=events, past=past)

    assert outcome == Succeeded(result={"output": "b", "attempt": 2, "inputs": {"x": "from before"}})
    assert told(events, EventType.NODE_STARTED) == [("node_started", "b")]


RESUMABLE = flow(
    node("a", "pass_on"), node("b", "flaky", retry_policy={"max_attempts": 3, "delay_ms": 0}), node("c", "count"),
    wires=(wire("a.output", "c.a"), wire("b.output", "c.b")),
)  # fmt: skip


@pytest.mark.parametrize("cut", range(11))
async def test_a_run_that_was_lost_anywhere_ends_as_if_nothing_had_happened(cut: int) -> None:
    async def count(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        return {"output": dict(call.inputs)}

    registry = script(pass_on=pass_on, flaky=fail_twice, count=count)
    whole, rest = MemorySink(), MemorySink()
    await run(RESUMABLE, registry=registry, events=whole)

    outcome = await run(RESUMABLE, registry=registry, events=rest, past=whole.happenings[:cut])

    assert len(whole.happenings) == 10
    assert outcome == Succeeded(result={"output": {"a": "a", "b": "b"}})
    completed = [
        said.node_id for said in whole.happenings[:cut] + rest.happenings if said.type is EventType.NODE_COMPLETED
    ]
    assert sorted(map(str, completed)) == ["a", "b", "c"]


async def test_a_node_that_failed_for_good_is_tried_again_by_the_next_attempt() -> None:
    error = RunError(kind=ErrorKind.USER, message="no").model_dump(mode="json")
    past = [Happening(EventType.NODE_FAILED, {"error": error, "attempt": 1}, "a")]

    assert isinstance(await run(flow(node("a", "ok")), registry=script(ok=pass_on), past=past), Succeeded)


async def test_a_document_of_a_newer_flo_fails_with_the_fix() -> None:
    from scripted_nodes import read, tools

    from workers.engine.drive import run_flow

    registry = script(newer=pass_on)
    document = read(flow(node("a", "newer")), registry)

    outcome = await run_flow(document, None, tools=tools(), events=MemorySink())

    assert isinstance(outcome, Failed)
    assert 'does not know the node type "newer" (update the worker)' in outcome.error.message


@pytest.mark.parametrize("wires", [(), tuple(wire(f"n{i}.message", f"n{i + 1}.message") for i in range(9_999))])
async def test_ten_thousand_nodes_run_to_the_end_side_by_side_or_in_a_chain(wires: tuple[Any, ...]) -> None:
    events = MemorySink()
    raw = flow(*(node(f"n{number}") for number in range(10_000)), wires=wires)

    assert isinstance(await run(raw, {"message": "x"}, events=events), Succeeded)
    assert len(told(events, EventType.NODE_COMPLETED)) == 10_000


async def test_a_long_chain_of_instant_nodes_lets_others_run() -> None:
    turns: list[str] = []

    async def note(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        turns.append(call.tools.run_id)
        return {"output": 1}

    def raw() -> dict[str, Any]:
        return flow(
            *(node(f"n{i}", "note") for i in range(100)),
            wires=tuple(wire(f"n{i}.output", f"n{i + 1}.x") for i in range(99)),
        )

    async def mark() -> None:
        turns.append("other")

    await asyncio.gather(run(raw(), registry=script(note=note)), mark())

    assert turns.index("other") < 99
