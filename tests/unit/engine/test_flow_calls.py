"""Flows that call flows, inside their run or as runs of their own."""

from __future__ import annotations

from typing import Any

import pytest
from document_maker import flow, mistakes_in, node, wire
from scripted_nodes import read, tools

from schemas.errors import NotFound
from schemas.flow import FlowDocument
from schemas.json import JSONObject, JSONValue
from schemas.outcome import ErrorKind, Failed, Outcome, Parked, Succeeded
from schemas.run import EventType, Happening
from workers.engine.drive import run_flow
from workers.engine.sink import MemorySink
from workers.linking import DEEPEST, link


class Library:
    """The flows of an app."""

    def __init__(self, **flows: Any) -> None:
        self._flows = {name: read(raw) for name, raw in flows.items()}

    async def read(self, app: str, flow: str, version: int) -> FlowDocument:
        if version != 1:
            raise NotFound(f"flow {flow!r} has no version {version}")
        return self._flows[flow]

    async def newest(self, app: str, flow: str) -> int:
        if flow not in self._flows:
            raise NotFound(f"app {app!r} has no flow {flow!r}")
        return 1

    async def run(self, raw: Any, payload: JSONValue = None, past: Any = (), events: Any = None) -> Outcome:
        document = await link(read(raw), self, app="app", flow="main")
        sink = events or MemorySink()
        return await run_flow(document, payload, tools=tools(), events=sink, past=past, may_park=True)


def call(node_id: str = "call", **config: Any) -> dict[str, Any]:
    return node(node_id, "flow.call", config={"flow": "greet", **config})


def short(one: dict[str, Any]) -> dict[str, Any]:
    """The short form of a flow inside a node."""
    return {key: one[key] for key in ("node_type", "config")}


GREET = flow(
    node("words", "transform.map", config={"map": '"hello " + name'}),
    node("end", "respond"),
    wires=(wire("words.output", "end.value"),),
)


async def test_a_called_flow_gets_the_inputs_and_gives_its_result() -> None:
    assert await Library(greet=GREET).run(flow(call()), {"payload": {"name": "bo"}, "name": "bo"}) == Succeeded(
        result={"output": "hello bo"}
    )


async def test_each_key_of_the_result_is_a_port() -> None:
    pair = flow(node("end", "respond", config={"value": {"a": 1, "b": 2}}))

    outcome = await Library(greet=pair).run(flow(call()))

    assert outcome == Succeeded(result={"a": 1, "b": 2, "output": {"a": 1, "b": 2}})


async def test_a_failure_inside_names_the_flow_and_its_node() -> None:
    bad = flow(node("parse", "transform.json_parse", config={"json": "{"}))

    outcome = await Library(greet=bad).run(flow(call()))

    assert isinstance(outcome, Failed)
    assert outcome.error.node_id == "call"
    assert outcome.error.message.startswith('flow "greet", node "parse": ')


@pytest.mark.parametrize(
    ("waiting", "said"),
    [
        (node("ok", "wait.approval"), 'its node "ok" (wait.approval) parks its run'),
        (node("ok", "time.delay", config={"delay_ms": 60_001}), "a time.delay of more than 60,000 ms"),
        (node("ok", "flow.call", config={"flow": "other", "mode": "run"}), 'a flow.call with mode: "run"'),
    ],
)
async def test_a_flow_that_would_park_its_run_is_not_called_inline(waiting: Any, said: str) -> None:
    library = Library(greet=flow(node("a"), waiting))

    direct = await library.run(flow(call()))
    within = await library.run(flow(node("each", "flow.map", config={"node": short(call()), "items": [1]})))

    assert isinstance(direct, Failed)
    assert isinstance(within, Failed)
    assert (direct.error.kind, direct.error.node_id) == (ErrorKind.INVALID_INPUT, "call")
    assert 'flow "greet" can\'t be called: ' in direct.error.message
    assert said in direct.error.message
    assert 'set mode: "run"' in direct.error.message
    assert said in within.error.message


async def test_a_flow_with_a_short_delay_is_called_inline() -> None:
    short_delay = flow(node("rest", "time.delay", config={"delay_ms": 1, "data": "done"}))

    assert await Library(greet=short_delay).run(flow(call())) == Succeeded(
        result={"data": "done", "output": {"data": "done"}}
    )


async def test_calls_inside_other_nodes_are_linked_too() -> None:
    each = node("each", "flow.map", config={"node": call() | {"id": None}, "items": [1, 2], "as": "name"})
    del each["config"]["node"]["id"]
    told = flow(node("end", "respond", config={"value": "told"}))

    outcome = await Library(greet=told).run(flow(each))

    assert isinstance(outcome, Succeeded)
    assert isinstance(outcome.result, dict)
    assert outcome.result["results"] == [{"output": "told"}, {"output": "told"}]


async def test_a_call_of_what_is_not_there_fails_when_it_is_reached_and_says_so() -> None:
    outcome = await Library().run(flow(call()))

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.INVALID_INPUT
    assert "has no flow 'greet'" in outcome.error.message


async def test_a_flow_that_calls_itself_is_told_which_way_it_went() -> None:
    outcome = await Library(greet=flow(call())).run(flow(call()))

    assert isinstance(outcome, Failed)
    assert f"more than {DEEPEST} flows call one another in a row (main > greet > greet" in outcome.error.message


@pytest.mark.parametrize("key", ["document", "unlinked"])
def test_what_the_worker_writes_cannot_be_pushed(key: str) -> None:
    value: Any = flow(node("x")) if key == "document" else "because"

    assert f"nodes[0].config.{key}" in mistakes_in(flow(call(**{key: value})))


async def parked(library: Library, raw: Any, past: list[Happening]) -> Parked:
    events = MemorySink()
    outcome = await library.run(raw, {"n": 1}, past=list(past), events=events)
    past += events.happenings
    assert isinstance(outcome, Parked), outcome
    return outcome


def ended(parked: Parked, **said: JSONValue) -> Happening:
    answer: JSONObject = {"run_id": "run_child", "status": "succeeded", "result": None, "error": None, **said}
    return Happening(EventType.RUN_RESUMED, {"waitpoint": parked.waits[0].waitpoint, "answer": answer})


async def test_a_call_as_a_run_parks_its_caller_until_that_run_is_over() -> None:
    library, raw, past = Library(), flow(call(mode="run")), list[Happening]()
    wait = (await parked(library, raw, past)).waits[0]

    assert wait.child is not None
    assert (wait.child.flow, wait.child.version, wait.child.payload) == ("greet", None, {"n": 1})
    past.append(ended(Parked(waits=(wait,)), result={"text": "hi"}))
    assert await library.run(raw, {"n": 1}, past=past) == Succeeded(result={"text": "hi", "output": {"text": "hi"}})


async def test_every_attempt_asks_for_the_same_run() -> None:
    library, raw, past = Library(), flow(call(mode="run")), list[Happening]()

    assert await parked(library, raw, past) == await parked(library, raw, past)


async def test_a_run_that_failed_fails_the_call_and_is_named() -> None:
    library, raw, past = Library(), flow(call(mode="run")), list[Happening]()
    error: JSONObject = {"kind": "user_error", "message": "no", "node_id": "x", "details": None}
    past.append(ended(await parked(library, raw, past), status="failed", error=error))

    outcome = await library.run(raw, past=past)

    assert isinstance(outcome, Failed)
    assert outcome.error.message == 'the run of flow "greet" (run_child), node "x": no'


async def test_a_call_that_is_retried_asks_for_another_run() -> None:
    policy = {"max_attempts": 2, "delay_ms": 0}
    library, raw, past = Library(), flow({**call(mode="run"), "retry_policy": policy}), list[Happening]()
    first = await parked(library, raw, past)
    error: JSONObject = {"kind": "cancelled", "message": "stopped", "node_id": None, "details": None}
    past.append(ended(first, status="cancelled", error=error))

    second = await parked(library, raw, past)

    assert second.waits[0].waitpoint != first.waits[0].waitpoint
    assert await parked(library, raw, past) == second
