"""An executor's attempts: executed once, fenced, held, kept for a while; without a network."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from box_in_hand import order

from schemas.app import AppLimits
from schemas.errors import Unavailable
from schemas.outcome import Cancelled, ErrorKind, Failed, Outcome, Retry, Succeeded
from schemas.run import EventType, Happening
from workers.engine.sink import EventSink
from workers.executors.base import RunOrder
from workers.runner.server import flights as flights_module
from workers.runner.server.clock import AnotherClock, Clock, FarClock
from workers.runner.server.flight import Flight
from workers.runner.server.flights import Fenced, Flights, Full, SharedTenure
from workers.runner.server.words import Held, Order, order_to


class ScriptedExecutor:
    """Ends its runs when the test says so, and takes its time to stop."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.may_stop = asyncio.Event()
        self.may_stop.set()
        self.result: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    async def run(self, given: RunOrder, events: EventSink) -> Outcome:
        self.begun.append(given.attempt)
        events.emit(Happening(EventType.NODE_STARTED, {"attempt": 1}, "a"))
        try:
            return await asyncio.shield(self.result)
        except asyncio.CancelledError:
            await self.may_stop.wait()
            raise
        finally:
            self.ended.append(given.attempt)

    async def aclose(self) -> None:
        return


@pytest.fixture
async def executor() -> ScriptedExecutor:
    return ScriptedExecutor()


@pytest.fixture
async def limits() -> dict[str, AppLimits]:
    return {}


@pytest.fixture
async def flights(executor: ScriptedExecutor, limits: dict[str, AppLimits]) -> AsyncIterator[Flights]:
    opened = Flights(executor, limits, capacity=2)
    yield opened
    executor.may_stop.set()
    await opened.aclose()


def sent(attempt: int = 1, **changes: Any) -> Order:
    whole = json.loads(order_to(order(attempt=attempt), AppLimits(), hold_s=60))
    return Order.model_validate(whole | changes)


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def lines(flight: Flight, after: int = 0) -> list[dict[str, Any]]:
    return [json.loads(line) async for chunk in flight.follow(after) for line in chunk.splitlines()]


async def test_an_order_means_the_same_on_the_other_side() -> None:
    past = [Happening(EventType.NODE_COMPLETED, {"outputs": {"x": 1}, "attempt": 1}, "a")]
    given = order(attempt=2, past=past, payload={"n": [1, None, "ü"]}, backend_config={"execution_mode": "X"})

    there = Order.model_validate_json(order_to(given, AppLimits(), hold_s=1)).as_run_order()

    assert there == given


async def test_an_attempt_that_is_sent_again_joins(flights: Flights, executor: ScriptedExecutor) -> None:
    assert flights.begin(sent()) is flights.begin(sent())
    await settled()

    assert executor.begun == [1]


async def test_who_comes_late_hears_everything_from_where_he_was(flights: Flights, executor: ScriptedExecutor) -> None:
    flight = flights.begin(sent())
    executor.result.set_result(Succeeded(result=1))

    assert [line["say"] for line in await lines(flight)] == ["event", "done"]
    assert [line["seq"] for line in await lines(flights.begin(sent()), after=1)] == [2]
    assert flight.state()["outcome"] == {"is": "succeeded", "result": 1}


async def test_a_newer_attempt_begins_when_nothing_of_the_older_is_left(
    flights: Flights, executor: ScriptedExecutor
) -> None:
    older = flights.begin(sent(1))
    await settled()
    executor.may_stop.clear()

    flights.begin(sent(2))
    await settled()
    begun_before = list(executor.begun)
    executor.may_stop.set()
    await older.over.wait()
    await settled()

    assert (begun_before, executor.begun, executor.ended) == ([1], [1, 2], [1])
    assert isinstance(older.outcome, Cancelled)


async def test_an_older_attempt_is_fenced(flights: Flights) -> None:
    flights.begin(sent(2))

    with pytest.raises(Fenced, match="attempt 2"):
        flights.begin(sent(1))


async def test_what_was_stopped_before_it_came_is_fenced(flights: Flights) -> None:
    assert await flights.stop("run_1", 1) is None

    with pytest.raises(Fenced):
        flights.begin(sent(1))
    assert flights.begin(sent(2)).attempt == 2


async def test_beyond_its_capacity_it_takes_nothing(flights: Flights, executor: ScriptedExecutor) -> None:
    for name in ("one", "two"):
        flights.begin(sent(run_id=name))

    with pytest.raises(Full):
        flights.begin(sent(run_id="three"))
    assert flights.begin(sent(run_id="two")).run_id == "two"

    executor.result.set_result(Succeeded(result=None))
    await settled()
    assert flights.begin(sent(run_id="three")).run_id == "three"


async def test_a_run_stopped_before_its_first_step_gives_its_place_back(flights: Flights) -> None:
    flight = flights.begin(sent())

    await flights.stop("run_1", 1)

    assert (flights.running, flight.outcome) == (0, Cancelled(reason="stopped from outside"))


async def test_effects_wait_until_what_was_told_is_durable(flights: Flights) -> None:
    flight = flights.begin(sent(confirms=True))
    await settled()
    flush = asyncio.create_task(flight.flush())
    await settled()
    told = int(str(flight.state()["told"]))

    flight.saved(told - 1)
    await settled()
    waited = not flush.done()
    flight.saved(told)

    await flush
    assert waited


async def test_where_nobody_confirms_nobody_is_waited_for(flights: Flights) -> None:
    flight = flights.begin(sent(confirms=False))
    await settled()

    await flight.flush()

    assert flight.state()["told"] == 1


async def test_what_nobody_holds_is_stopped(flights: Flights, monkeypatch: pytest.MonkeyPatch) -> None:
    flight = flights.begin(sent(hold_s=0.01))

    await flight.over.wait()

    assert isinstance(flight.outcome, Retry)


async def test_a_word_in_time_keeps_it(flights: Flights) -> None:
    flight = flights.begin(sent(hold_s=0.2))

    unknown = flights.hold(Held(runs=[("run_1", 1), ("run_9", 1)], for_s=60))

    assert unknown == [("run_9", 1)]
    assert flight.held_until is not None
    assert flight.held_until > asyncio.get_running_loop().time() + 30


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [(Unavailable("no box"), Retry), (RuntimeError("a bug"), Failed)],
)
async def test_trouble_is_an_outcome(
    flights: Flights, executor: ScriptedExecutor, trouble: Exception, expected: type[Outcome]
) -> None:
    executor.result.set_exception(trouble)

    flight = flights.begin(sent())
    await flight.over.wait()

    assert isinstance(flight.outcome, expected)
    assert not isinstance(flight.outcome, Failed) or flight.outcome.error.kind is ErrorKind.INTERNAL


async def test_what_is_over_is_forgotten_when_too_much_is_kept(
    flights: Flights, executor: ScriptedExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flights_module, "MOST_KEPT", 100)
    executor.result.set_result(Succeeded(result="x" * 100))
    for name in ("one", "two"):
        await flights.begin(sent(run_id=name)).over.wait()
    await settled()

    assert flights.find("one", 1) is None
    assert flights.find("two", 1) is not None


async def test_when_it_is_stopped_runs_are_given_back(flights: Flights) -> None:
    flight = flights.begin(sent())
    await settled()

    await flights.drain(timedelta(0))

    assert flight.outcome == Retry(after=timedelta(0), reason="its executor was stopped")
    with pytest.raises(Full):
        flights.begin(sent(run_id="late"))


async def test_each_order_says_what_its_app_is_allowed(flights: Flights, limits: dict[str, AppLimits]) -> None:
    flights.begin(sent(limits={"egress": "none"}))

    assert limits["acme"].egress == "none"


async def test_what_was_let_go_of_is_held_no_more_whatever_its_worker_says(
    flights: Flights, executor: ScriptedExecutor
) -> None:
    flight = flights.begin(sent(hold_s=60))
    await settled()
    flight.held_until = 0.0

    unknown = flights.hold(Held(runs=[(flight.run_id, 1)], for_s=60))

    assert unknown == [(flight.run_id, 1)]
    assert flight.is_let_go()
    executor.may_stop.set()


async def test_what_began_before_all_was_let_go_of_acts_no_more_though_something_new_comes(
    executor: ScriptedExecutor, limits: dict[str, AppLimits]
) -> None:
    tenure = SharedTenure()
    flights = Flights(executor, limits, tenure, capacity=2)
    flight = flights.begin(sent(hold_s=60))
    before = tenure.begin()
    await settled()
    flight.held_until = 0.0

    flights.begin(sent(run_id="run_other", hold_s=60))
    after = tenure.begin()

    assert (before(), after()) == (False, True)
    executor.may_stop.set()
    await flights.aclose()


async def test_what_is_kept_for_later_runs_may_act_while_there_are_none(limits: dict[str, AppLimits]) -> None:
    tenure = SharedTenure()
    flights = Flights(ScriptedExecutor(), limits, tenure, capacity=2)

    assert tenure.begin()()
    await flights.aclose()


async def test_an_order_that_is_read_when_its_sender_holds_it_no_more_is_refused(
    flights: Flights, executor: ScriptedExecutor
) -> None:
    until = FarClock()
    until.learn(flights.clock.told())

    with pytest.raises(Fenced, match="comes late"):
        flights.begin(sent(hold_s=60, held_until=until.after(-0.001)))

    assert flights.running == 0


async def test_a_word_that_is_read_late_holds_for_no_longer_than_it_said(
    flights: Flights, executor: ScriptedExecutor
) -> None:
    there = FarClock()
    there.learn(flights.clock.told())
    flight = flights.begin(sent(hold_s=60, held_until=there.after(10)))
    said_long_ago = there.after(-5 + 60)

    flights.hold(Held(runs=[(flight.run_id, 1)], for_s=60, until=said_long_ago))

    assert flight.held_until is not None and flight.held_until < time.monotonic() + 56
    executor.may_stop.set()


async def test_a_word_by_the_clock_of_an_executor_that_was_here_before_is_refused(flights: Flights) -> None:
    with pytest.raises(AnotherClock):
        flights.begin(sent(hold_s=60, held_until=Clock().told()))
