"""Which nodes run when others failed, were skipped, or hang on a branch that was not taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from document_maker import flow, node, wire
from scripted_nodes import read, run, script, told

from schemas.fold import nodes_from
from schemas.json import JSONValue
from schemas.outcome import ErrorKind, Failed, RunError, Succeeded
from schemas.run import EventType, Happening
from workers.engine.sink import MemorySink
from workers.engine.trigger import decide
from workers.nodes.node import NodeCall, node_error


async def pass_on(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
    return {"output": call.node_id, "inputs": dict(call.inputs)}


async def fail(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
    raise node_error(ErrorKind.USER, "no")


NODES = script(ok=pass_on, fail=fail)


def started(events: MemorySink) -> list[str | None]:
    return [node_id for _, node_id in told(events, EventType.NODE_STARTED)]


@pytest.mark.parametrize(
    ("rule", "counts", "decision"),
    [
        ("all_success", "1100", "wait"), ("all_success", "0200", "start"),
        ("all_success", "1010", "skip"), ("all_success", "1001", "skip"),
        ("all_failed", "1010", "wait"), ("all_failed", "0020", "start"), ("all_failed", "1100", "skip"),
        ("all_done", "1111", "wait"), ("all_done", "0111", "start"),
        ("one_success", "1100", "start"), ("one_success", "1010", "wait"),
        ("one_success", "0011", "skip"),
        ("one_failed", "1010", "start"), ("one_failed", "1100", "wait"), ("one_failed", "0101", "skip"),
        ("none_failed", "0101", "start"), ("none_failed", "1010", "skip"), ("none_failed", "1001", "wait"),
    ],
)  # fmt: skip
def test_a_rule_decides_as_soon_as_nothing_could_change_its_mind(rule: Any, counts: str, decision: str) -> None:
    waiting, succeeded, failed, skipped = map(int, counts)

    assert decide(rule, waiting=waiting, succeeded=succeeded, failed=failed, skipped=skipped) == decision


FALLBACK = flow(
    node("main", "fail"), node("spare", "ok", trigger_rule="one_failed"), node("end", "ok", trigger_rule="one_success"),
    wires=(wire("main.error", "spare.why"), wire("main.output", "end.x"), wire("spare.output", "end.x")),
)  # fmt: skip


async def test_a_fallback_runs_when_its_node_has_failed_and_the_run_succeeds() -> None:
    events = MemorySink()

    outcome = await run(FALLBACK, registry=NODES, events=events)

    assert outcome == Succeeded(result={"output": "end", "inputs": {"x": "spare"}})
    assert started(events) == ["main", "spare", "end"]


async def test_a_fallback_gets_the_error_of_the_node_that_failed() -> None:
    raw = flow(
        node("main", "fail"), node("spare", "ok", trigger_rule="all_failed"), wires=(wire("main.error", "spare.why"),)
    )

    outcome = await run(raw, registry=NODES)

    error = {"kind": "user_error", "message": "no", "node_id": "main"}
    assert outcome == Succeeded(result={"output": "spare", "inputs": {"why": error}})


async def test_a_fallback_that_is_not_needed_is_skipped() -> None:
    events = MemorySink()

    outcome = await run(
        {**FALLBACK, "nodes": [node("main", "ok"), *FALLBACK["nodes"][1:]]}, registry=NODES, events=events
    )

    assert outcome == Succeeded(result={"output": "end", "inputs": {"x": "main"}})
    assert started(events) == ["main", "end"]


async def test_a_clean_up_runs_after_a_failure_and_the_run_still_fails_with_it() -> None:
    events = MemorySink()
    raw = flow(
        node("main", "fail"), node("after", "ok"), node("clean", "ok", trigger_rule="all_done"),
        wires=(wire("main.output", "after.x"), wire("main.output", "clean.x")),
    )  # fmt: skip

    outcome = await run(raw, registry=NODES, events=events)

    assert outcome == Failed(error=RunError(kind=ErrorKind.USER, message="no", node_id="main"))
    assert started(events) == ["main", "clean"]


async def test_a_fallback_that_was_skipped_makes_nothing_good() -> None:
    raw = flow(
        node("bad", "fail"), node("good", "ok"), node("spare", "ok", trigger_rule="all_failed"),
        wires=(wire("bad.output", "spare.x"), wire("good.output", "spare.y")),
    )  # fmt: skip

    outcome = await run(raw, registry=NODES)

    assert outcome == Failed(error=RunError(kind=ErrorKind.USER, message="no", node_id="bad"))


async def test_a_failure_that_is_never_made_good_starts_the_flow_over_if_it_says_so() -> None:
    events = MemorySink()
    raw = flow(
        node("main", "fail"), node("clean", "ok", trigger_rule="all_done"),
        wires=(wire("main.output", "clean.x"),), settings={"on_error": {"RetryWorkflow": {"max_attempts": 2}}},
    )  # fmt: skip

    assert isinstance(await run(raw, registry=NODES, events=events), Failed)
    assert started(events) == ["main", "clean", "main", "clean"]


async def test_skipping_spreads_to_all_that_depends_on_it() -> None:
    events = MemorySink()
    raw = flow(
        node("pick", "flow.branch", config={"if": "n > 1"}), node("yes", "ok"), node("no", "ok"), node("later", "ok"),
        wires=(wire("pick.true", "yes.x"), wire("pick.false", "no.x"), wire("no.output", "later.x")),
    )  # fmt: skip

    outcome = await run(raw, {"n": 2}, registry=NODES, events=events)

    assert outcome == Succeeded(result={"output": "yes", "inputs": {"x": {"n": 2}}})
    assert started(events) == ["pick", "yes"]


async def test_skipped_nodes_are_shown_as_skipped_once_the_run_is_over() -> None:
    events = MemorySink()
    raw = flow(
        node("pick", "flow.branch", config={"if": "n > 1"}), node("yes", "ok"), node("no", "ok"),
        wires=(wire("pick.true", "yes.x"), wire("pick.false", "no.x")),
    )  # fmt: skip

    await run(raw, {"n": 2}, registry=NODES, events=events)

    over = Happening(EventType.RUN_COMPLETED, {"status": "succeeded"})
    shown = nodes_from(read(raw, NODES), [*events.happenings, over])
    assert [(view.id, view.status) for view in shown] == [
        ("pick", "succeeded"),
        ("yes", "succeeded"),
        ("no", "skipped"),
    ]


async def test_ways_that_part_at_a_branch_meet_again() -> None:
    raw = flow(
        node("pick", "flow.branch", config={"if": "n > 1"}), node("yes", "ok"), node("no", "ok"),
        node("end", "ok", trigger_rule="none_failed"),
        wires=(
            wire("pick.true", "yes.x"), wire("pick.false", "no.x"),
            wire("yes.output", "end.x"), wire("no.output", "end.x"),
        ),
    )  # fmt: skip

    assert await run(raw, {"n": 0}, registry=NODES) == Succeeded(result={"output": "end", "inputs": {"x": "no"}})


async def test_a_node_that_fails_in_a_flow_that_continues_lets_nodes_without_a_rule_run_and_those_with_one_judge() -> (
    None
):
    events = MemorySink()
    raw = flow(
        node("bad", "fail"), node("any", "ok"), node("strict", "ok", trigger_rule="all_success"),
        wires=(wire("bad.output", "any.x"), wire("bad.output", "strict.x")), settings={"on_error": "ContinueOnError"},
    )  # fmt: skip

    assert isinstance(await run(raw, registry=NODES, events=events), Succeeded)
    assert started(events) == ["bad", "any"]


async def test_a_failure_that_the_flow_went_on_without_is_not_tried_again_by_the_next_attempt() -> None:
    events = MemorySink()
    error = RunError(kind=ErrorKind.USER, message="no", node_id="main").model_dump(mode="json")
    past = [Happening(EventType.NODE_FAILED, {"error": error, "attempt": 1}, "main")]

    await run(FALLBACK, registry=NODES, events=events, past=past)

    assert started(events) == ["spare", "end"]


async def test_a_sequential_flow_runs_one_node_at_a_time_in_the_documents_order() -> None:
    events = MemorySink()
    raw = flow(
        node("a", "ok"), node("c", "ok"), node("b", "ok"),
        wires=(wire("a.output", "c.x"),), settings={"strategy": "sequential"},
    )  # fmt: skip

    await run(raw, registry=NODES, events=events)

    assert [kind for kind, _ in told(events)] == ["node_started", "node_completed"] * 3
    assert started(events) == ["a", "c", "b"]


async def test_a_conditional_flow_goes_only_along_the_ports_that_its_nodes_fill() -> None:
    async def route(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        return {"left": 1}

    events = MemorySink()
    raw = flow(
        node("a", "route"), node("l", "ok"), node("r", "ok"),
        wires=(wire("a.left", "l.x"), wire("a.right", "r.x")), settings={"strategy": "conditional"},
    )  # fmt: skip

    await run(raw, registry={**NODES, **script(route=route)}, events=events)

    assert started(events) == ["a", "l"]


CASES = {
    "on": "order.country",
    "cases": [{"port": "near", "equals": "DE"}, {"port": "big", "if": "order.total > 1000"}],
    "else": "far",
}


@pytest.mark.parametrize(
    ("order", "taken"),
    [({"country": "DE", "total": 5000}, "near"), ({"country": "US", "total": 5000}, "big"), ({"total": 1}, "far")],
)
async def test_a_branch_takes_the_first_case_that_holds_and_passes_its_data_on(order: Any, taken: str) -> None:
    raw = flow(node("pick", "flow.branch", config=CASES))

    outcome = await run(raw, {"order": order, "data": 7})

    assert outcome == Succeeded(result={taken: 7, "taken": taken})


async def test_a_condition_that_makes_no_sense_for_its_inputs_fails_the_branch() -> None:
    outcome = await run(flow(node("pick", "flow.branch", config={"if": "n > 1"})), {"n": "x"})

    assert isinstance(outcome, Failed)
    assert outcome.error.message == 'can\'t compare "x" with 1: two numbers or two texts are needed'
