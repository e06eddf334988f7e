"""Nodes in pods: what their runs are given, what becomes of how those end, and that nothing else changes by it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import pytest
from document_maker import flow, node, wire
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_nodes import read, script, tools
from test_solo_nodes import Here, echo, graphs, places

from schemas.flow import FlowDocument
from schemas.json import JSONObject, JSONValue
from schemas.nodes.spec import SoloBounds
from schemas.outcome import ChildNode, ErrorKind, Failed, Outcome, Parked, RunError, Succeeded, Wait, WaitKind
from schemas.outcome_words import outcome_from, outcome_to
from schemas.run import EventType, Happening
from schemas.solo import with_pods
from workers.engine.drive import run_flow
from workers.engine.registry import BUILT_IN, Registered
from workers.engine.shared import Shared
from workers.engine.sink import MemorySink
from workers.executors.base import RunOrder
from workers.executors.solo.pod import pod_run
from workers.nodes.node import NodeCall, node_error


class Attempts:
    """A run that is attempted again and again, and a cluster that has its nodes' runs."""

    def __init__(self, raw: Any, registry: Mapping[str, Registered], *, cluster: bool = True) -> None:
        self._registry = registry
        self.document: FlowDocument = with_pods(read(raw, registry), SoloBounds(), cluster=cluster)
        self.here, self.pods = Here(registry), Here(registry)
        self._tools = replace(tools(), solo=places(self.here))
        self.shared = Shared()
        self.past: list[Happening] = []

    async def attempt(self, payload: JSONValue = None, *, may_park: bool = True) -> Outcome:
        events = MemorySink()
        outcome = await run_flow(
            self.document, payload, tools=self._tools, events=events, past=self.past, may_park=may_park,
            registry={**BUILT_IN, **self._registry}, shared=self.shared,
        )  # fmt: skip
        self.past += events.happenings
        return outcome

    async def park(self, payload: JSONValue = None) -> Wait:
        outcome = await self.attempt(payload)
        assert isinstance(outcome, Parked), outcome
        (wait,) = outcome.waits
        return wait

    def answer(self, wait: Wait, **ended: Any) -> None:
        said: JSONObject = {"run_id": "run_child", "status": "succeeded", "result": {}, "error": None, **ended}
        self.past.append(Happening(EventType.RUN_RESUMED, {"waitpoint": wait.waitpoint, "answer": said}))

    def fail(
        self,
        wait: Wait,
        kind: ErrorKind,
        message: str = "no",
        *,
        status: str = "failed",
        details: JSONObject | None = None,
    ) -> None:
        error = RunError(kind=kind, message=message, details=details).model_dump(mode="json")
        self.answer(wait, status=status, result=None, error=error)

    async def to_the_end(self, payload: JSONValue = None) -> Outcome:
        """Have the cluster run what the run waits for, one after the other, and tell of each end at once."""
        outcome = await self.attempt(payload)
        while isinstance(outcome, Parked):
            await self._run_in_pod(outcome.waits[0])
            outcome = await self.attempt(payload)
        return outcome

    async def _run_in_pod(self, wait: Wait) -> None:
        ended = await self.pods.run(pod_run(order_of(self.document, wait), wait.node_id), MemorySink())
        if isinstance(ended, Succeeded):
            self.answer(wait, result=ended.result)
        else:
            assert isinstance(ended, Failed)
            self.answer(wait, status="failed", result=None, error=ended.error.model_dump(mode="json"))


def order_of(document: FlowDocument, wait: Wait, **more: Any) -> RunOrder:
    """The order for the run that a node waits for, as its worker reads it; what it is given went through SQL."""
    assert isinstance(wait.child, ChildNode)
    known: dict[str, Any] = {
        "run_id": "run_child", "app": "app", "flow": "main", "version": 1, "attempt": 1, "document": document,
        "payload": json.loads(json.dumps(wait.child.given)), "backend_config": {},
    }  # fmt: skip
    return RunOrder(**known | more)


def in_pod(node_id: str, node_type: str = "echo", **more: Any) -> dict[str, Any]:
    return {**node(node_id, node_type, **more), "execution_mode": "pod"}


async def test_a_node_in_a_pod_parks_its_run_and_says_what_it_is_given() -> None:
    attempts = Attempts(flow(in_pod("a")), script(echo=echo))

    wait = await attempts.park({"x": 1})

    assert (wait.node_id, wait.kind, wait.until) == ("a", WaitKind.CHILD, None)
    assert wait.child == ChildNode(given={"attempt": 1, "payload": {"x": 1}, "brought": None, "kept": []})


async def test_one_that_is_fed_says_what_it_was_fed_with_and_not_the_payload() -> None:
    attempts = Attempts(flow(node("b", "echo"), in_pod("a"), wires=(wire("b.output", "a.x"),)), script(echo=echo))

    wait = await attempts.park({"secret": 1})

    assert isinstance(wait.child, ChildNode)
    assert (wait.child.given["payload"], "x" in cast(JSONObject, wait.child.given["brought"])) == (None, True)


async def test_an_attempt_that_comes_to_the_same_try_again_waits_for_the_same_run() -> None:
    attempts = Attempts(flow(in_pod("a")), script(echo=echo))

    assert await attempts.park() == await attempts.park()


async def test_pods_that_are_ready_together_run_together_and_each_once() -> None:
    attempts = Attempts(flow(in_pod("a"), in_pod("b")), script(echo=echo))
    both = await attempts.attempt()
    assert isinstance(both, Parked)

    attempts.answer(both.waits[1], result={"n": 1})
    left = await attempts.park()

    assert [wait.node_id for wait in both.waits] == ["a", "b"]
    assert left == both.waits[0]


async def test_what_its_run_gives_is_what_the_node_gives() -> None:
    attempts = Attempts(flow(in_pod("a"), node("b", "echo"), wires=(wire("a.n", "b.n"),)), script(echo=echo))

    attempts.answer(await attempts.park(), result={"n": 7})

    assert await attempts.attempt() == Succeeded(result={"output": {"n": 7}, "attempt": 1})
    assert attempts.here.orders == []


async def test_each_try_is_another_run_and_knows_its_number() -> None:
    raw = flow(in_pod("a", retry_policy={"max_attempts": 2, "delay_ms": 0}))
    attempts = Attempts(raw, script(echo=echo))

    first = await attempts.park()
    attempts.fail(first, ErrorKind.UPSTREAM)
    second = await attempts.park()
    attempts.fail(second, ErrorKind.UPSTREAM, "still no")
    outcome = await attempts.attempt()

    assert first.waitpoint != second.waitpoint
    assert [cast(ChildNode, wait.child).given["attempt"] for wait in (first, second)] == [1, 2]
    assert isinstance(outcome, Failed)
    assert (outcome.error.message, outcome.error.node_id) == ("still no", "a")


async def test_a_limit_of_its_pod_is_worded_for_the_node() -> None:
    memory: JSONObject = {"raise_with": "settings.resources.limits.memory"}
    attempts = Attempts(flow({**in_pod("a"), "resources": {"memory_mb": 256}}), script(echo=echo))

    attempts.fail(await attempts.park(), ErrorKind.MEMORY_EXCEEDED, "took more than 256Mi", details=memory)
    outcome = await attempts.attempt()

    assert isinstance(outcome, Failed)
    assert outcome.error.details == {"limit": 256, "raise_with": "resources.memory_mb"}
    assert "its limit of 256 MB" in outcome.error.message


@pytest.mark.parametrize(("kind", "status"), [(ErrorKind.LOST, "dead"), (ErrorKind.CANCELLED, "cancelled")])
async def test_a_run_that_was_lost_or_stopped_fails_its_node_and_is_named(kind: ErrorKind, status: str) -> None:
    attempts = Attempts(flow(in_pod("a")), script(echo=echo))

    attempts.fail(await attempts.park(), kind, "why", status=status)
    outcome = await attempts.attempt()

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.INTERNAL
    assert outcome.error.message == f"the run of the node's own pod (run_child) is {status}: why"


async def test_a_run_that_says_nothing_of_its_node_has_not_succeeded() -> None:
    attempts = Attempts(flow(in_pod("a")), script(echo=echo))

    attempts.answer(await attempts.park(), result="forged")
    outcome = await attempts.attempt()

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.INTERNAL


async def test_where_no_run_can_be_parked_it_has_a_sandbox_instead() -> None:
    attempts = Attempts(flow(in_pod("a")), script(echo=echo))

    assert isinstance(await attempts.attempt(may_park=False), Succeeded)
    assert len(attempts.here.orders) == 1


async def test_inside_another_node_it_has_a_sandbox_instead() -> None:
    config = {"node": {"node_type": "echo", "execution_mode": "pod"}, "items": [1, 2]}
    attempts = Attempts(flow(node("a", "flow.map", config=config)), script(echo=echo))

    assert isinstance(await attempts.attempt(), Succeeded)
    assert len(attempts.here.orders) == 2


async def test_without_a_cluster_it_has_a_sandbox_but_an_answer_from_its_pod_still_counts() -> None:
    raw = flow(in_pod("a"))
    before, after = Attempts(raw, script(echo=echo)), Attempts(raw, script(echo=echo), cluster=False)

    before.answer(await before.park(), result={"n": 7})
    after.past = before.past

    assert await after.attempt() == Succeeded(result={"n": 7})
    assert isinstance(await Attempts(raw, script(echo=echo), cluster=False).attempt(), Succeeded)


async def test_what_a_pod_gave_is_kept_and_given_again() -> None:
    attempts = Attempts(flow(in_pod("a", cache={"ttl_ms": 60_000})), script(echo=echo))
    first = await attempts.to_the_end({"x": 1})
    attempts.past = []

    assert await attempts.attempt({"x": 1}) == first
    assert len(attempts.pods.orders) == 1


async def test_what_it_waits_for_crosses_to_another_process() -> None:
    outcome = await Attempts(flow(in_pod("a")), script(echo=echo)).attempt({"x": 1})

    assert outcome_from(json.loads(json.dumps(outcome_to(outcome)))) == outcome


@settings(max_examples=25, deadline=None)
@given(
    graph=graphs(),
    payload=st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3) | st.none(), max_size=3),
)
def test_any_split_into_pods_and_others_gives_the_same(graph: Any, payload: Any) -> None:
    nodes, wires, split = graph
    mixed = [{**each, "execution_mode": place} for each, place in zip(nodes, split, strict=True)]

    async def fails(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        raise node_error(ErrorKind.USER, "no", seen=dict(call.inputs))

    async def sums(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        return {"output": [dict(call.inputs), call.attempt, call.node_id]}

    async def ended(these: list[dict[str, Any]]) -> tuple[Outcome, Any]:
        raw = flow(*these, wires=wires, settings={"on_error": "ContinueOnError"})
        attempts = Attempts(raw, script(echo=echo, fails=fails, sums=sums))
        return await attempts.to_the_end(payload), _given(attempts.past)

    assert asyncio.run(ended(mixed)) == asyncio.run(ended(nodes))


def _given(past: list[Happening]) -> dict[str | None, Any]:
    """What each node gave, or why it failed."""
    ends = (EventType.NODE_COMPLETED, EventType.NODE_FAILED)
    return {said.node_id: said.data.get("outputs", said.data.get("error")) for said in past if said.type in ends}
