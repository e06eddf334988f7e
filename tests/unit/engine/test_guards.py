"""Cache, bulkhead and circuit breaker around a node, and the hooks that watch it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from document_maker import flow, node, wire
from scripted_nodes import Gate, read, script, tools

from schemas.json import JSONValue
from schemas.outcome import Cancelled, ErrorKind, Failed, Outcome, RunError, Succeeded
from schemas.run import EventType
from workers.engine.circuit import MemoryBreakers
from workers.engine.drive import run_flow
from workers.engine.hooks import Hook, NodeSeen, RunSeen
from workers.engine.registry import BUILT_IN, Registered
from workers.engine.shared import Shared
from workers.engine.sink import MemorySink
from workers.nodes.node import NodeCall, node_error


class Counted:
    """Work that counts its calls, and fails as long as the test says so."""

    def __init__(self, fails: int = 0, kind: ErrorKind = ErrorKind.UPSTREAM) -> None:
        self.calls = 0
        self._fails = fails
        self._kind = kind

    async def __call__(self, call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        self.calls += 1
        if self.calls <= self._fails:
            raise node_error(self._kind, "away")
        return {"output": self.calls}


async def run(
    raw: Any,
    registry: Mapping[str, Registered],
    payload: JSONValue = None,
    *,
    shared: Shared | None = None,
    hooks: tuple[Hook, ...] = (),
    events: MemorySink | None = None,
) -> Outcome:
    return await run_flow(
        read(raw, registry), payload, tools=tools(), events=events or MemorySink(),
        registry={**BUILT_IN, **registry}, shared=shared, hooks=hooks,
    )  # fmt: skip


async def test_a_node_with_a_cache_asks_once_for_the_same_inputs() -> None:
    counted, shared, events = Counted(), Shared(), MemorySink()
    raw = flow(node("a", "counted", cache={"ttl_ms": 60_000}))

    await run(raw, script(counted=counted), {"x": 1}, shared=shared)
    again = await run(raw, script(counted=counted), {"x": 1}, shared=shared, events=events)
    await run(raw, script(counted=counted), {"x": 2}, shared=shared)

    assert again == Succeeded(result={"output": 1})
    assert counted.calls == 2
    assert events.happenings[-1].data["cached"] is True


async def test_a_cache_may_look_at_some_of_the_inputs_only() -> None:
    counted, shared = Counted(), Shared()
    raw = flow(node("a", "counted", cache={"ttl_ms": 60_000, "key": "user.id"}))

    await run(raw, script(counted=counted), {"user": {"id": 1}, "now": 1}, shared=shared)
    await run(raw, script(counted=counted), {"user": {"id": 1}, "now": 2}, shared=shared)

    assert counted.calls == 1


async def test_a_failure_is_not_cached() -> None:
    counted, shared = Counted(fails=1), Shared()
    raw = flow(node("a", "counted", cache={"ttl_ms": 60_000}))

    await run(raw, script(counted=counted), shared=shared)

    assert await run(raw, script(counted=counted), shared=shared) == Succeeded(result={"output": 2})


async def test_an_open_circuit_spares_its_target_and_says_so() -> None:
    counted, shared = Counted(fails=9), Shared(breakers=MemoryBreakers(clock=lambda: 0.0))
    raw = flow(node("a", "counted", circuit_breaker={"key": "bank", "failure_threshold": 2}))
    await run(raw, script(counted=counted), shared=shared)
    await run(raw, script(counted=counted), shared=shared)

    outcome = await run(raw, script(counted=counted), shared=shared)

    assert counted.calls == 2
    assert isinstance(outcome, Failed)
    assert (
        outcome.error.message
        == 'the circuit of "bank" is open, as calls to it kept failing; it is tried again in 60.0 s'
    )
    assert outcome.error.details is not None
    assert outcome.error.details["circuit_state"] == "open"


@pytest.mark.parametrize("kind", [ErrorKind.INVALID_INPUT, ErrorKind.FORBIDDEN])
async def test_the_callers_own_mistakes_do_not_open_a_circuit(kind: ErrorKind) -> None:
    counted, shared = Counted(fails=9, kind=kind), Shared()
    raw = flow(node("a", "counted", circuit_breaker={"failure_threshold": 1}))

    await run(raw, script(counted=counted), shared=shared)
    await run(raw, script(counted=counted), shared=shared)

    assert counted.calls == 2


async def test_an_http_node_has_a_circuit_for_each_host() -> None:
    shared = Shared()
    raw = flow(
        node("a", "http.request", circuit_breaker={"failure_threshold": 1}, config={"url": "http://127.0.0.1:9"})
    )
    document = read(raw)
    config = BUILT_IN["http.request"].type.config.model_validate(document.nodes[0].config)

    assert config.target({"url": "https://u:p@Example.COM:8443/x?y"}) == "example.com:8443"
    assert config.target({"url": "http://[::1"}) is None
    assert isinstance(await run(raw, {}, shared=shared), Failed)


async def test_a_bulkhead_bounds_nodes_over_runs() -> None:
    first, second, shared = Gate(), Gate(), Shared()
    rule = {"key": "db", "max_concurrent": 1}
    one = asyncio.create_task(run(flow(node("a", "gate", bulkhead=rule)), script(gate=first), shared=shared))
    await first.entered.wait()
    two = asyncio.create_task(run(flow(node("a", "gate", bulkhead=rule)), script(gate=second), shared=shared))
    refused = await run(
        flow(node("a", "gate", bulkhead={**rule, "when_full": "fail"})), script(gate=second), shared=shared
    )

    assert not second.entered.is_set()
    assert isinstance(refused, Failed)
    assert 'bulkhead "db" is full: 1 nodes run behind it now' in refused.error.message
    first.opened.set()
    await second.entered.wait()
    second.opened.set()
    assert [isinstance(each, Succeeded) for each in await asyncio.gather(one, two)] == [True, True]


class Diary(Hook):
    """Writes down everything that it hears."""

    def __init__(self) -> None:
        self.lines: list[object] = []

    async def before_flow(self, run: RunSeen, payload: JSONValue) -> None:
        self.lines.append(("before flow", run.run_id, run.flow, payload))

    async def after_flow(self, run: RunSeen, outcome: Outcome) -> None:
        self.lines.append(("after flow", type(outcome).__name__))

    async def before_node(self, node: NodeSeen, inputs: Mapping[str, JSONValue]) -> None:
        self.lines.append(("before", node.node_id, node.attempt, dict(inputs)))

    async def after_node(self, node: NodeSeen, result: Mapping[str, JSONValue] | RunError) -> None:
        self.lines.append(("after", node.node_id, result.kind if isinstance(result, RunError) else dict(result)))


async def test_hooks_hear_of_the_flow_and_of_every_try_at_a_node() -> None:
    diary = Diary()
    policy = {"max_attempts": 2, "delay_ms": 0}
    raw = flow(node("a", "counted", retry_policy=policy), node("b"), wires=(wire("a.output", "b.message"),))

    await run(raw, script(counted=Counted(fails=1)), {"x": 1}, hooks=(diary,))

    assert diary.lines == [
        ("before flow", "run", "flow", {"x": 1}),
        ("before", "a", 1, {"x": 1, "payload": {"x": 1}}),
        ("after", "a", ErrorKind.UPSTREAM),
        ("before", "a", 2, {"x": 1, "payload": {"x": 1}}),
        ("after", "a", {"output": 2}),
        ("before", "b", 1, {"message": 2}),
        ("after", "b", {"message": 2}),
        ("after flow", "Succeeded"),
    ]


async def test_hooks_hear_that_a_run_was_cancelled() -> None:
    heard: list[Outcome] = []
    gate = Gate()

    class Ears(Hook):
        async def after_flow(self, run: RunSeen, outcome: Outcome) -> None:
            heard.append(outcome)

    running = asyncio.create_task(run(flow(node("a", "gate")), script(gate=gate), hooks=(Ears(),)))
    await gate.entered.wait()

    running.cancel()

    await asyncio.wait([running])
    assert heard == [Cancelled(reason="stopped from outside")]


async def test_a_hook_that_breaks_changes_nothing() -> None:
    class Broken(Hook):
        async def before_flow(self, run: RunSeen, payload: JSONValue) -> None:
            raise ZeroDivisionError

        async def before_node(self, node: NodeSeen, inputs: Mapping[str, JSONValue]) -> None:
            raise ZeroDivisionError

    diary = Diary()

    outcome = await run(flow(node("a", "counted")), script(counted=Counted()), hooks=(Broken(), diary))

    assert outcome == Succeeded(result={"output": 1})
    assert len(diary.lines) == 4


async def test_what_a_node_says_while_it_runs_reaches_the_feed() -> None:
    async def talk(call: NodeCall[Any]) -> Mapping[str, JSONValue]:
        call.log("warning", "careful")
        call.progress(50, "half")
        call.data("rows", [1])
        return {}

    events = MemorySink()

    await run(flow(node("a", "talk")), script(talk=talk), events=events)

    assert [(said.type, said.data) for said in events.happenings[1:-1]] == [
        (EventType.LOG, {"level": "warning", "message": "careful"}),
        (EventType.PROGRESS, {"percent": 50, "message": "half"}),
        (EventType.DATA, {"port": "rows", "value": [1]}),
    ]
