"""Which box a run gets, how long an app keeps one, and who is guilty when one dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from box_in_hand import exited, order

from schemas.json import JSONObject
from schemas.outcome import ErrorKind, Failed, Outcome, Retry, RunError, Succeeded
from schemas.run import EventType, Happening
from workers.engine.sink import EventSink, MemorySink
from workers.executors.base import RunOrder
from workers.executors.boxed.per_app import BoxPerApp
from workers.executors.boxed.per_run import BoxPerRun
from workers.executors.boxed.supply import BoxSupply, Kind
from workers.executors.boxed.terms import Terms
from workers.executors.boxed.verdict import BoxDied
from workers.sandboxes.box.base import NO_USAGE, CommandOutcome, Stopped
from workers.sandboxes.box.egress import NO_EGRESS

_TERMS = Terms(memory_mb=100, inline_http_cap=timedelta(seconds=1))


class ScriptedBox:
    """Ends its runs when the test says so."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.is_dead = False
        self.is_buried = False
        #: Somebody waits until it is confirmed dead.
        self.is_mourned = False
        self.orders: list[RunOrder] = []
        self._open: list[asyncio.Future[Outcome]] = []

    @property
    def runs(self) -> int:
        return len(self._open)

    async def run(self, given: RunOrder, events: EventSink, terms: JSONObject) -> Outcome:
        self.orders.append(given)
        events.emit(Happening(EventType.NODE_STARTED, {"attempt": 1}, "a"))
        end = asyncio.get_running_loop().create_future()
        self._open.append(end)
        try:
            return await end
        finally:
            self._open.remove(end)

    def finish(self, outcome: Outcome | None = None) -> None:
        for end in self._open:
            end.set_result(outcome or Succeeded(result=None))

    def die(self, how: CommandOutcome, *, began: bool = True) -> None:
        self.is_dead = True
        for end in self._open:
            end.set_exception(BoxDied(how, alone=len(self.orders) == 1, began=began))

    def kill(self) -> None:
        self.is_dead = self.is_buried = True

    async def aclose(self) -> CommandOutcome:
        self.is_mourned = True
        self.kill()
        return exited(0)


class Boxes(list[ScriptedBox]):
    async def make(self, kind: Kind) -> ScriptedBox:
        self.append(ScriptedBox(kind))
        return self[-1]


@pytest.fixture
def boxes() -> Boxes:
    return Boxes()


@pytest.fixture
async def per_app(boxes: Boxes) -> AsyncIterator[BoxPerApp]:
    executor = BoxPerApp(BoxSupply(boxes.make, ready=0), _TERMS, most_idle=2)
    yield executor
    await executor.aclose()
    assert all(box.is_dead for box in boxes)


def started(executor: BoxPerApp | BoxPerRun, given: RunOrder) -> asyncio.Task[Outcome]:
    return asyncio.create_task(executor.run(given, MemorySink()))


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_runs_of_an_app_share_a_box(per_app: BoxPerApp, boxes: Boxes) -> None:
    runs = [started(per_app, order()) for _ in range(3)]
    await settled()

    assert [box.runs for box in boxes] == [3]
    boxes[0].finish()
    await asyncio.gather(*runs)


async def test_a_box_that_is_of_no_more_use_is_killed_and_the_next_run_has_another(
    per_app: BoxPerApp, boxes: Boxes
) -> None:
    first = started(per_app, order())
    await settled()
    boxes[0].finish()
    await first
    boxes[0].is_dead = True

    second = started(per_app, order())
    await settled()

    assert boxes[0].is_buried
    assert [box.runs for box in boxes] == [0, 1]
    boxes[1].finish()
    await second


async def test_no_two_apps_share_a_box(per_app: BoxPerApp, boxes: Boxes) -> None:
    runs = [started(per_app, order(app=app)) for app in ("one", "two")]
    await settled()

    assert [[given.app for given in box.orders] for box in boxes] == [["one"], ["two"]]
    for box in boxes:
        box.finish()
    await asyncio.gather(*runs)


async def test_a_change_of_what_an_app_may_reach_is_another_box(per_app: BoxPerApp, boxes: Boxes) -> None:
    runs = [started(per_app, order()), started(per_app, order(egress=NO_EGRESS))]
    await settled()

    assert [box.kind.egress.reach for box in boxes] == ["public", "none"]
    for box in boxes:
        box.finish()
    await asyncio.gather(*runs)


async def test_of_the_idle_boxes_the_one_that_has_rested_longest_goes(per_app: BoxPerApp, boxes: Boxes) -> None:
    for app in ("one", "two", "three"):
        run = started(per_app, order(app=app))
        await settled()
        boxes[-1].finish()
        await run
    await settled()

    assert [box.is_dead for box in boxes] == [True, False, False]


async def test_a_rested_box_is_retired_in_time(boxes: Boxes) -> None:
    executor = BoxPerApp(BoxSupply(boxes.make, ready=0), _TERMS, kept=timedelta(0))
    run = started(executor, order())
    await settled()
    boxes[0].finish()
    await run
    await asyncio.sleep(0.001)
    await settled()

    assert boxes[0].is_dead
    await executor.aclose()


async def test_who_was_in_a_box_that_died_starts_again_alone_and_repeats_nothing(
    per_app: BoxPerApp, boxes: Boxes
) -> None:
    runs = [started(per_app, order(run_id=name)) for name in ("run_1", "run_2")]
    await settled()
    boxes[0].die(exited(-9))
    await settled()

    assert [[given.run_id for given in box.orders] for box in boxes[1:]] == [["run_1"], ["run_2"]]
    assert [said.type for said in boxes[1].orders[0].past] == [EventType.NODE_STARTED]
    for box in boxes[1:]:
        box.finish()
    assert await asyncio.gather(*runs) == [Succeeded(result=None)] * 2


async def test_whoever_kills_a_box_of_its_own_is_guilty(per_app: BoxPerApp, boxes: Boxes) -> None:
    innocent, guilty = started(per_app, order()), started(per_app, order())
    await settled()
    boxes[0].die(exited(-9))
    await settled()
    boxes[1].finish()
    boxes[2].die(exited(-9))

    assert await innocent == Succeeded(result=None)
    found = await guilty
    assert isinstance(found, Failed)
    assert found.error.kind is ErrorKind.KILLED
    assert "SIGKILL" in found.error.message


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ErrorKind.MEMORY_EXCEEDED, ErrorKind.MEMORY_EXCEEDED),
        (ErrorKind.CANCELLED, ErrorKind.KILLED),
        (ErrorKind.OUTPUT_EXCEEDED, ErrorKind.OUTPUT_EXCEEDED),
    ],
)
async def test_how_a_box_died_is_what_its_only_run_is_told(kind: ErrorKind, expected: ErrorKind, boxes: Boxes) -> None:
    executor = BoxPerRun(BoxSupply(boxes.make, ready=0), _TERMS)
    run = started(executor, order())
    await settled()
    error = RunError(kind=kind, message="why")
    boxes[0].die(Stopped(error=error, stdout=b"", stderr=b"", usage=NO_USAGE))

    found = await run
    assert isinstance(found, Failed)
    assert found.error.kind is expected
    await executor.aclose()


async def test_a_box_that_was_lost_through_our_fault_is_worth_another_attempt(boxes: Boxes) -> None:
    executor = BoxPerRun(BoxSupply(boxes.make, ready=0), _TERMS)
    run = started(executor, order())
    await settled()
    error = RunError(kind=ErrorKind.LOST, message="the zygote died")
    boxes[0].die(Stopped(error=error, stdout=b"", stderr=b"", usage=NO_USAGE))

    assert isinstance(await run, Retry)
    await executor.aclose()


async def test_a_run_is_not_guilty_of_the_death_of_boxes_that_never_had_it(per_app: BoxPerApp, boxes: Boxes) -> None:
    run = started(per_app, order())
    for number in range(3):
        await settled()
        boxes[number].die(exited(-9), began=False)
    await settled()
    boxes[3].finish()

    assert await run == Succeeded(result=None)


async def test_a_run_whose_boxes_all_die_before_they_have_it_is_put_off(boxes: Boxes) -> None:
    executor = BoxPerRun(BoxSupply(boxes.make, ready=0), _TERMS)
    run = started(executor, order())
    for number in range(3):
        await settled()
        boxes[number].die(exited(-9), began=False)

    assert isinstance(await run, Retry)
    assert all(box.is_dead for box in boxes)
    await executor.aclose()


@pytest.mark.parametrize(
    ("outcome", "waits"),
    [
        (Succeeded(result=1), False),
        (Failed(error=RunError(kind=ErrorKind.USER, message="no")), True),
        (Retry(after=timedelta(0), reason="later"), True),
    ],
)
async def test_only_a_run_that_succeeded_does_not_wait_for_the_death_of_its_box(
    outcome: Outcome, waits: bool, boxes: Boxes
) -> None:
    executor = BoxPerRun(BoxSupply(boxes.make, ready=0), _TERMS)
    run = started(executor, order())
    await settled()
    boxes[0].finish(outcome)

    assert await run == outcome
    assert (boxes[0].is_dead, boxes[0].is_mourned) == (True, waits)
    await executor.aclose()


async def test_a_box_is_used_for_one_run_only(boxes: Boxes) -> None:
    executor = BoxPerRun(BoxSupply(boxes.make, ready=1), _TERMS)
    for number in range(3):
        run = started(executor, order(run_id=f"run_{number}"))
        await settled()
        next(box for box in boxes if box.runs).finish()
        await run

    assert [len(box.orders) for box in boxes if box.orders] == [1, 1, 1]
    assert all(box.is_dead for box in boxes if box.orders)
    await executor.aclose()
    assert all(box.is_dead for box in boxes)
