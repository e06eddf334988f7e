"""Nodes that run alone for an engine in a box: what the worker takes from that box, and what it tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from box_in_hand import Inside, engine_box, order

from schemas.json import JSONValue
from schemas.outcome import ErrorKind, Succeeded
from schemas.run import EventType, Happening
from workers.engine.sink import EventSink, MemorySink
from workers.engine.solo import SoloOrder
from workers.executors.boxed.engine_box import EngineBox
from workers.executors.boxed.verdict import BoxDied
from workers.nodes.node import node_error
from workers.sandboxes.box.egress import NO_EGRESS

_DONE = {"is": "succeeded", "result": None}
_ASKED = {
    "node": {"id": "a", "node_type": "debug.log", "execution_mode": "sandbox"}, "place": "sandbox", "attempt": 1,
    "payload": None, "brought": {"message": "m"}, "kept": [[0, "done"]],
}  # fmt: skip


class Scripted:
    """Runs nodes as the test says."""

    def __init__(self, *, fails: bool = False, waits: bool = False, saves: bool = False) -> None:
        self.orders: list[SoloOrder] = []
        self.begun = asyncio.Event()
        self.cancelled = self.saved = False
        self._fails, self._waits, self._saves = fails, waits, saves

    async def run(self, order: SoloOrder, events: EventSink) -> Mapping[str, JSONValue]:
        self.orders.append(order)
        self.begun.set()
        events.emit(Happening(EventType.LOG, {"level": "info", "message": "here"}))
        try:
            if self._waits:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # it takes a moment to kill it
            self.cancelled = True
            raise
        if self._saves:
            await events.flush()
            self.saved = True
        if self._fails:
            raise node_error(ErrorKind.USER, "no")
        return {"message": "m"}


async def begun(box: EngineBox, inside: Inside, **changes: Any) -> tuple[asyncio.Task[object], int]:
    run = asyncio.create_task(box.run(order(**changes), MemorySink(), {}))
    return run, (await inside.hear("run"))["run"]


async def test_a_node_is_run_and_its_words_and_its_outputs_come_back() -> None:
    solo = Scripted()
    async with engine_box(solo=solo) as (box, inside):
        run, number = await begun(box, inside, egress=NO_EGRESS)
        inside.say(say="ask", ask=5, run=number, what="solo", order=_ASKED)
        told, answer = await inside.hear("told"), await inside.hear("answer")
        inside.done(number, _DONE)
        await run

    assert told == {"do": "told", "ask": 5, "type": "log", "data": {"level": "info", "message": "here"}}
    assert answer["value"] == {"outputs": {"message": "m"}}
    (given,) = solo.orders
    assert (given.app, given.run_id, given.egress) == ("acme", "run_1", NO_EGRESS)
    assert (given.brought, given.kept) == ({"message": "m"}, {0: "done"})


async def test_whose_node_it_is_and_what_it_may_reach_is_not_for_the_box_to_say() -> None:
    solo = Scripted()
    async with engine_box(solo=solo) as (box, inside):
        _, number = await begun(box, inside, egress=NO_EGRESS)
        forged = {**_ASKED, "app": "other", "run_id": "run_other", "egress": {"reach": "public"}}
        inside.say(say="ask", ask=5, run=number, what="solo", order=forged)
        await inside.hear("answer")

    assert (solo.orders[0].app, solo.orders[0].run_id, solo.orders[0].egress) == ("acme", "run_1", NO_EGRESS)


async def test_an_error_of_the_node_is_its_answer() -> None:
    async with engine_box(solo=Scripted(fails=True)) as (box, inside):
        _, number = await begun(box, inside)
        inside.say(say="ask", ask=5, run=number, what="solo", order=_ASKED)
        answer = await inside.hear("answer")

    assert answer["value"]["error"]["kind"] == "user_error"


async def test_its_words_are_durable_when_the_engine_says_so() -> None:
    solo = Scripted(saves=True)
    async with engine_box(solo=solo) as (box, inside):
        _, number = await begun(box, inside)
        inside.say(say="ask", ask=5, run=number, what="solo", order=_ASKED)
        await inside.hear("told")
        asked = await inside.hear("told")
        before = solo.saved
        inside.say(say="ask", ask=6, run=number, what="solo_saved", order={"ask": 5})
        await inside.hear("answer")

        assert (asked["type"], before) == (None, False)
    assert solo.saved


async def test_that_the_words_of_a_node_which_is_over_are_durable_is_no_news() -> None:
    async with engine_box(solo=Scripted()) as (box, inside):
        run, number = await begun(box, inside)
        inside.say(say="ask", ask=6, run=number, what="solo_saved", order={"ask": 5})
        answer = await inside.hear("answer")
        inside.done(number, _DONE)

        assert answer["value"] is None
        assert isinstance(await run, Succeeded)


async def test_a_run_is_not_over_before_its_nodes_sandboxes_are() -> None:
    solo = Scripted(waits=True)
    async with engine_box(solo=solo) as (box, inside):
        run, number = await begun(box, inside)
        inside.say(say="ask", ask=5, run=number, what="solo", order=_ASKED)
        await solo.begun.wait()
        inside.done(number, _DONE)
        await run

        assert solo.cancelled


async def test_a_node_that_nobody_waits_for_any_more_is_stopped() -> None:
    solo = Scripted(waits=True)
    async with engine_box(solo=solo) as (box, inside):
        run, number = await begun(box, inside)
        inside.say(say="ask", ask=5, run=number, what="solo", order=_ASKED)
        await solo.begun.wait()
        inside.say(say="drop", ask=5)
        inside.say(say="ask", ask=6, run=number, what="flush", order=None)
        await inside.hear("answer")
        inside.done(number, _DONE)
        await run

    assert solo.cancelled


async def test_many_that_wait_for_a_place_keep_no_other_question_waiting() -> None:
    async with engine_box(solo=Scripted(waits=True)) as (box, inside):
        _, number = await begun(box, inside)
        for ask in range(1, 101):
            inside.say(say="ask", ask=ask, run=number, what="solo", order=_ASKED)
        inside.say(say="ask", ask=101, run=number, what="flush", order=None)

        assert (await inside.hear("answer"))["ask"] == 101


@pytest.mark.parametrize(
    "change",
    [
        {"place": "host"}, {"brought": [1]}, {"node": {"id": "a"}}, {"node": 7}, {"attempt": "first"}, {"kept": [1]},
        {"kept": [["x", 1]]},
    ],
)  # fmt: skip
async def test_an_order_that_is_none_ends_its_box(change: dict[str, Any]) -> None:
    async with engine_box(solo=Scripted()) as (box, inside):
        run, number = await begun(box, inside)
        inside.say(say="ask", ask=5, run=number, what="solo", order=_ASKED | change)

        with pytest.raises(BoxDied):
            await run


async def test_a_box_of_a_node_that_is_alone_gets_no_other() -> None:
    async with engine_box() as (box, inside):
        run, number = await begun(box, inside)
        inside.say(say="ask", ask=5, run=number, what="solo", order=_ASKED)

        with pytest.raises(BoxDied):
            await run
