"""Flows that wait for something outside: the attempt ends, and a later one goes on where it was."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from document_maker import flow, node, wire
from scripted_nodes import Gate, read, run, script, told, tools

from schemas.flow import FlowDocument
from schemas.fold import nodes_from
from schemas.json import JSONObject, JSONValue
from schemas.outcome import ErrorKind, Failed, Parked, Succeeded, WaitKind
from schemas.run import EventType, Happening
from schemas.waitpoint import waitpoint_of
from workers.engine.drive import run_flow
from workers.engine.sink import MemorySink

HOUR = 3_600_000


class Attempts:
    """A run that is attempted again and again, with what happened in between."""

    def __init__(self, *nodes: Any, wires: tuple[Any, ...] = (), **settings: Any) -> None:
        self.raw = flow(*nodes, wires=wires, settings=settings)
        self.past: list[Happening] = []
        self.said: list[Happening] = []

    async def attempt(self, payload: JSONValue = None, **more: Any) -> Any:
        events = MemorySink()
        outcome = await run(self.raw, payload, events=events, past=self.past, may_park=True, **more)
        self.said = events.happenings
        self.past += events.happenings
        return outcome

    async def park(self, payload: JSONValue = None, **more: Any) -> Parked:
        outcome = await self.attempt(payload, **more)
        assert isinstance(outcome, Parked), outcome
        return outcome

    def answer(self, waitpoint: str | None, answer: JSONObject) -> None:
        self.past.append(Happening(EventType.RUN_RESUMED, {"waitpoint": waitpoint, "answer": answer}))

    def wake(self, until: datetime | None) -> None:
        assert until is not None
        self.past.append(Happening(EventType.RUN_RESUMED, {"until": until.isoformat()}))


async def test_a_webhook_that_is_waited_for_parks_the_run_and_its_answer_fills_the_ports() -> None:
    attempts = Attempts(node("hook", "wait.webhook"))

    parked = await attempts.park()
    (wait,) = parked.waits
    attempts.answer(wait.waitpoint, {"body": {"paid": True}, "headers": {}, "query": {}, "method": "POST"})

    assert (wait.kind, wait.node_id, wait.until) == (WaitKind.WEBHOOK, "hook", None)
    assert await attempts.attempt() == Succeeded(
        result={"body": {"paid": True}, "headers": {}, "query": {}, "method": "POST", "timed_out": False}
    )


async def test_what_is_told_while_a_run_waits_is_the_url_whose_token_answers_it() -> None:
    attempts = Attempts(node("hook", "wait.webhook"))

    parked = await attempts.park()
    shown = next(said.data for said in attempts.past if said.type is EventType.DATA)

    assert shown["port"] == "url"
    assert shown["value"] == parked.waits[0].url
    assert waitpoint_of(str(shown["value"]).rsplit("/", 1)[1]) == parked.waits[0].waitpoint


async def test_an_attempt_that_comes_to_the_same_wait_again_waits_at_the_same_url_until_the_same_time() -> None:
    attempts = Attempts(node("hook", "wait.webhook", config={"timeout_ms": HOUR}))

    first, second = await attempts.park(), await attempts.park()

    assert first == second
    assert first.until is not None


async def test_everything_else_runs_before_the_run_is_parked() -> None:
    attempts = Attempts(
        node("hook", "wait.webhook"), node("say"), node("more"), wires=(wire("say.message", "more.message"),)
    )

    await attempts.park({"message": "hi"})

    assert ("node_completed", "more") in told(_sink(attempts.said))


async def test_one_answer_of_two_lets_its_branch_run_and_parks_the_run_again() -> None:
    attempts = Attempts(
        node("a", "wait.approval"), node("b", "wait.approval"), node("after"), wires=(wire("a.by", "after.message"),)
    )
    parked = await attempts.park()
    attempts.answer(parked.waits[0].waitpoint, {"approved": True, "by": "bo", "comment": ""})

    again = await attempts.park()

    assert [wait.node_id for wait in again.waits] == ["b"]
    assert again.waits[0] == parked.waits[1]
    assert ("node_completed", "after") in told(_sink(attempts.said))


async def test_a_wait_that_nobody_ends_in_time_fails_its_node() -> None:
    attempts = Attempts(node("ok", "wait.approval", config={"timeout_ms": HOUR}))
    parked = await attempts.park()
    attempts.wake(parked.until)

    outcome = await attempts.attempt()

    assert isinstance(outcome, Failed)
    assert (outcome.error.kind, outcome.error.node_id) == (ErrorKind.TIMED_OUT, "ok")
    assert "raise timeout_ms" in outcome.error.message


async def test_a_wait_may_go_on_without_an_answer() -> None:
    attempts = Attempts(node("ok", "wait.approval", config={"timeout_ms": HOUR, "on_timeout": "continue"}))
    parked = await attempts.park()
    attempts.wake(parked.until)

    assert await attempts.attempt() == Succeeded(result={"approved": False, "timed_out": True})


async def test_an_answer_counts_although_the_run_was_woken_by_the_time() -> None:
    attempts = Attempts(node("ok", "wait.approval", config={"timeout_ms": HOUR}))
    parked = await attempts.park()
    attempts.wake(parked.until)
    attempts.answer(parked.waits[0].waitpoint, {"approved": True, "by": "", "comment": ""})

    assert isinstance(await attempts.attempt(), Succeeded)


async def test_the_clock_of_a_worker_ends_no_wait() -> None:
    attempts = Attempts(node("ok", "wait.approval", config={"timeout_ms": 1}))
    parked = await attempts.park()
    attempts.past.append(Happening(EventType.RUN_RESUMED, {"until": "2020-01-01T00:00:00+00:00"}))

    assert await attempts.attempt() == parked


async def test_a_node_that_waited_too_long_and_is_retried_waits_at_a_new_url() -> None:
    policy = {"max_attempts": 2, "delay_ms": 0, "retry_on_timeout": True}
    attempts = Attempts(node("hook", "wait.webhook", config={"timeout_ms": HOUR}, retry_policy=policy))
    first = await attempts.park()
    attempts.wake(first.until)

    second = await attempts.park()

    assert second.waits[0].waitpoint != first.waits[0].waitpoint
    assert second.until is not None and first.until is not None and second.until > first.until


async def test_a_worker_that_is_stopped_leaves_the_url_as_it_was() -> None:
    attempts = Attempts(node("hook", "wait.webhook"), node("slow", "gate"))
    first = await Attempts.park(_only(attempts, "hook"))
    stopped = {"error": {"kind": "cancelled", "message": "stopped: the run is over"}, "attempt": 1}
    attempts.past.append(Happening(EventType.NODE_FAILED, stopped, "hook"))
    gate = Gate()
    gate.opened.set()

    again = await attempts.park(registry=script(gate=gate))

    assert again.waits == first.waits


async def test_a_url_that_was_made_ahead_is_the_one_at_which_the_run_waits() -> None:
    attempts = Attempts(
        node("link", "wait.url"),
        node("tell"),
        node("hook", "wait.webhook"),
        wires=(wire("link.url", "tell.message"), wire("link.token", "hook.token"), wire("tell.message", "hook.after")),
    )

    parked = await attempts.park()
    views = {view.id: view for view in nodes_from(read(attempts.raw), attempts.past)}

    assert isinstance(views["tell"].outputs, dict)
    assert views["tell"].outputs["message"] == parked.waits[0].url


async def test_a_caller_cannot_choose_the_token_by_which_his_own_request_is_approved() -> None:
    attempts = Attempts(node("ok", "wait.approval"))

    outcome = await attempts.attempt({"token": "A" * 43})

    assert isinstance(outcome, Failed)
    assert "none that a wait.url node of this run has made" in outcome.error.message


async def test_a_long_delay_parks_the_run_and_passes_its_data_on_when_it_is_woken() -> None:
    attempts = Attempts(node("later", "time.delay", config={"delay_ms": HOUR}))
    parked = await attempts.park({"data": 7})
    attempts.wake(parked.until)

    assert (parked.waits[0].kind, parked.waits[0].waitpoint) == (WaitKind.DELAY, None)
    assert await attempts.attempt({"data": 7}) == Succeeded(result={"data": 7})


async def test_of_two_delays_the_shorter_one_wakes_the_run() -> None:
    attempts = Attempts(
        node("short", "time.delay", config={"delay_ms": HOUR}),
        node("long", "time.delay", config={"delay_ms": 2 * HOUR}),
    )
    parked = await attempts.park()
    attempts.wake(parked.until)

    again = await attempts.park()

    assert parked.until == parked.waits[0].until
    assert [wait.node_id for wait in again.waits] == ["long"]
    assert again.until == parked.waits[1].until


async def test_a_delay_that_is_longer_than_its_limit_fails_when_that_is_over() -> None:
    attempts = Attempts(node("later", "time.delay", config={"delay_ms": 9 * HOUR, "timeout_ms": HOUR}))
    parked = await attempts.park()
    attempts.wake(parked.until)

    outcome = await attempts.attempt()

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.TIMED_OUT


async def test_a_short_delay_is_slept_through() -> None:
    attempts = Attempts(node("soon", "time.delay", config={"delay_ms": 1}))

    assert await attempts.attempt({"data": 1}) == Succeeded(result={"data": 1})


@pytest.mark.parametrize("node_type", ["wait.webhook", "wait.approval", "wait.url"])
async def test_where_no_server_keeps_the_run_a_wait_says_so(node_type: str) -> None:
    outcome = await run(flow(node("it", node_type)))

    assert isinstance(outcome, Failed)
    assert "a run can't be parked here" in outcome.error.message


async def test_a_wait_inside_another_node_that_was_never_checked_says_so() -> None:
    inner = {"node": {"node_type": "wait.webhook"}, "items": [1]}
    document = FlowDocument.model_validate(flow(node("each", "flow.map", config=inner)))

    outcome = await run_flow(document, None, tools=tools(), events=MemorySink(), may_park=True)

    assert isinstance(outcome, Failed)
    assert "a run can't be parked here" in outcome.error.message


async def test_a_failed_run_says_that_the_nodes_which_waited_were_stopped() -> None:
    gate_that_fails = {"node_type": "transform.json_parse", "config": {"json": "{"}}
    attempts = Attempts(node("hook", "wait.webhook"), {"id": "bad", **gate_that_fails})

    outcome = await attempts.attempt()

    assert isinstance(outcome, Failed)
    assert ("node_failed", "hook") in told(_sink(attempts.said))


async def test_parked_nodes_are_shown_as_waiting() -> None:
    attempts = Attempts(node("hook", "wait.webhook"), node("after"), wires=(wire("hook.body", "after.message"),))
    parked = await attempts.park()
    said = Happening(EventType.RUN_WAITING, {"waits": [{"node_id": wait.node_id} for wait in parked.waits]})

    views = nodes_from(read(attempts.raw), [*attempts.past, said])

    assert [view.status for view in views] == ["waiting", "pending"]


async def test_a_year_is_the_longest_wait() -> None:
    year = timedelta(days=365) // timedelta(milliseconds=1)

    assert read(flow(node("hook", "wait.webhook", config={"timeout_ms": year})))


def _sink(said: list[Happening]) -> MemorySink:
    sink = MemorySink()
    sink.happenings = said
    return sink


def _only(attempts: Attempts, node_id: str) -> Attempts:
    """The same run, as if its document had this node alone; what happens is noted in the same place."""
    only = Attempts(*(one for one in attempts.raw["nodes"] if one["id"] == node_id))
    only.past = attempts.past
    return only
