"""What the runs of a worker share: one suite for whatever keeps circuits, places and results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.flow import Bulkhead, CircuitBreaker
from workers.engine.bulkhead import BulkheadFull, Bulkheads, MemoryBulkheads
from workers.engine.circuit import (
    MOST_CIRCUITS,
    Admitted,
    Breakers,
    Circuit,
    MemoryBreakers,
    Refused,
    Verdict,
    admit,
    report,
)
from workers.engine.results import LARGEST, MemoryResults, Question, ResultCache, fingerprint

RULE = CircuitBreaker(failure_threshold=2, open_ms=10_000, half_open_calls=1)


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=[MemoryBreakers])
def breakers(request: pytest.FixtureRequest, clock: Clock) -> Breakers:
    kept: Breakers = request.param(clock)
    return kept


@pytest.fixture(params=[MemoryBulkheads])
def bulkheads(request: pytest.FixtureRequest) -> Bulkheads:
    kept: Bulkheads = request.param()
    return kept


@pytest.fixture(params=[MemoryResults])
def results(request: pytest.FixtureRequest, clock: Clock) -> ResultCache:
    kept: ResultCache = request.param(clock=clock)
    return kept


async def call(breakers: Breakers, verdict: Verdict, key: str = "target") -> None:
    admitted = await breakers.admit(key, RULE)
    assert isinstance(admitted, Admitted)
    await breakers.report(key, RULE, epoch=admitted.epoch, verdict=verdict)


async def test_a_circuit_opens_after_so_many_failures_in_a_row(breakers: Breakers) -> None:
    await call(breakers, "failed")
    await call(breakers, "worked")
    await call(breakers, "failed")
    await call(breakers, "failed")

    assert await breakers.admit("target", RULE) == Refused(timedelta(seconds=10))


async def test_one_targets_circuit_is_not_anothers(breakers: Breakers) -> None:
    await call(breakers, "failed")
    await call(breakers, "failed")

    assert isinstance(await breakers.admit("other", RULE), Admitted)


async def test_an_open_circuit_lets_one_call_through_after_its_time(breakers: Breakers, clock: Clock) -> None:
    await call(breakers, "failed")
    await call(breakers, "failed")
    clock.now = 10.0

    assert isinstance(await breakers.admit("target", RULE), Admitted)
    assert isinstance(await breakers.admit("target", RULE), Refused)


async def test_a_trial_that_works_closes_the_circuit(breakers: Breakers, clock: Clock) -> None:
    await call(breakers, "failed")
    await call(breakers, "failed")
    clock.now = 10.0

    await call(breakers, "worked")

    await call(breakers, "failed")
    assert isinstance(await breakers.admit("target", RULE), Admitted)


async def test_a_trial_that_fails_opens_it_for_as_long_again(breakers: Breakers, clock: Clock) -> None:
    await call(breakers, "failed")
    await call(breakers, "failed")
    clock.now = 10.0

    await call(breakers, "failed")

    assert await breakers.admit("target", RULE) == Refused(timedelta(seconds=10))


async def test_a_trial_that_says_nothing_is_given_to_the_next(breakers: Breakers, clock: Clock) -> None:
    await call(breakers, "failed")
    await call(breakers, "failed")
    clock.now = 10.0

    await call(breakers, "says nothing")

    assert isinstance(await breakers.admit("target", RULE), Admitted)


async def test_a_call_that_ends_after_its_circuit_opened_does_not_count(breakers: Breakers, clock: Clock) -> None:
    late = await breakers.admit("target", RULE)
    assert isinstance(late, Admitted)
    await call(breakers, "failed")
    await call(breakers, "failed")
    clock.now = 10.0
    await breakers.admit("target", RULE)

    await breakers.report("target", RULE, epoch=late.epoch, verdict="worked")

    assert isinstance(await breakers.admit("target", RULE), Refused)


async def test_a_trial_whose_caller_died_does_not_keep_the_circuit_open_for_ever(
    breakers: Breakers, clock: Clock
) -> None:
    await call(breakers, "failed")
    await call(breakers, "failed")
    clock.now = 10.0
    await breakers.admit("target", RULE)

    clock.now = 20.0

    assert isinstance(await breakers.admit("target", RULE), Admitted)


async def test_circuits_that_nobody_uses_are_forgotten(clock: Clock) -> None:
    breakers = MemoryBreakers(clock)
    await call(breakers, "failed", "old")
    await call(breakers, "failed", "old")

    await asyncio.gather(*(breakers.admit(f"target {number}", RULE) for number in range(MOST_CIRCUITS)))

    assert isinstance(await breakers.admit("old", RULE), Admitted)


@given(
    st.lists(st.sampled_from(["admit", "worked", "failed", "says nothing", "later"]), max_size=60), st.integers(1, 3)
)
def test_no_more_trials_than_allowed_are_under_way_and_an_open_circuit_admits_nobody(
    moves: list[str], half_open_calls: int
) -> None:
    rule = CircuitBreaker(failure_threshold=2, open_ms=1000, half_open_calls=half_open_calls)
    circuit, now, under_way = Circuit(), 0.0, list[int]()
    for move in moves:
        match move:
            case "admit":
                before = circuit
                circuit, answer = admit(circuit, rule, now)
                under_way += [answer.epoch] if isinstance(answer, Admitted) else []
                assert not (before.phase == "open" and now < before.since + 1 and isinstance(answer, Admitted))
            case "later":
                now += 0.6
            case "worked" | "failed" | "says nothing" if under_way:
                circuit = report(circuit, rule, now, epoch=under_way.pop(0), verdict=move)  # type: ignore[arg-type]
        assert circuit.phase != "half_open" or under_way.count(circuit.epoch) <= half_open_calls


ONE = Bulkhead(key="db", max_concurrent=1)


async def test_a_full_bulkhead_makes_the_next_one_wait(bulkheads: Bulkheads) -> None:
    entered = asyncio.Event()

    async def enter() -> None:
        async with bulkheads.place("db", ONE):
            entered.set()

    async with bulkheads.place("db", ONE):
        waiting = asyncio.create_task(enter())
        await asyncio.sleep(0)
        assert not entered.is_set()
    await waiting

    assert entered.is_set()


async def test_a_bulkhead_may_refuse_instead(bulkheads: Bulkheads) -> None:
    rule = ONE.model_copy(update={"when_full": "fail"})

    async with bulkheads.place("db", rule):
        with pytest.raises(BulkheadFull):
            await bulkheads.place("db", rule).__aenter__()


async def test_who_is_cancelled_while_waiting_takes_no_place(bulkheads: Bulkheads) -> None:
    async def enter() -> None:
        async with bulkheads.place("db", ONE):
            return

    async with bulkheads.place("db", ONE):
        first, second = asyncio.create_task(enter()), asyncio.create_task(enter())
        await asyncio.sleep(0)
        first.cancel()

    await asyncio.wait([first, second])
    assert (first.cancelled(), second.cancelled()) == (True, False)


async def test_a_place_that_was_handed_to_one_who_is_cancelled_goes_to_the_next(bulkheads: Bulkheads) -> None:
    async def enter() -> None:
        async with bulkheads.place("db", ONE):
            return

    async with bulkheads.place("db", ONE):
        first, second = asyncio.create_task(enter()), asyncio.create_task(enter())
        await asyncio.sleep(0)
    first.cancel()  # its turn has come, but it has not seen that yet

    await asyncio.wait([first, second])
    assert not second.cancelled()
    async with bulkheads.place("db", ONE.model_copy(update={"when_full": "fail"})):
        pass


def question(node_type: str = "http.request", *, app: str = "a") -> Question:
    return Question(app=app, node_type=node_type, fingerprint=fingerprint(node_type, {}, {"url": "x"}))


async def test_what_was_put_is_got_until_its_time_is_over(results: ResultCache, clock: Clock) -> None:
    await results.put(question(), {"body": [1, 2**70]}, timedelta(seconds=5))

    clock.now = 4.9
    assert await results.get(question()) == {"body": [1, 2**70]}
    clock.now = 5.0
    assert await results.get(question()) is None


async def test_a_result_can_not_be_changed_by_who_got_it(results: ResultCache) -> None:
    await results.put(question(), {"body": [1]}, timedelta(seconds=5))
    got = await results.get(question())
    assert got is not None

    got["body"].append(2)  # type: ignore[union-attr]

    assert await results.get(question()) == {"body": [1]}


async def test_no_app_sees_what_another_has_put(results: ResultCache) -> None:
    await results.put(question(app="a"), {"body": 1}, timedelta(seconds=5))

    assert await results.get(question(app="b")) is None


@pytest.mark.parametrize(
    ("forgotten", "left"), [({"app": "a"}, 1), ({"node_type": "x"}, 1), ({"app": "b", "node_type": "x"}, 2), ({}, 0)]
)
async def test_results_are_forgotten_by_app_and_by_type(
    results: ResultCache, forgotten: dict[str, str], left: int
) -> None:
    kept = [question("x", app="a"), question("y", app="a"), question("x", app="b")]
    await asyncio.gather(*(results.put(each, {}, timedelta(seconds=5)) for each in kept))
    known: Callable[[object], bool] = lambda outputs: outputs is not None  # noqa: E731

    gone = await results.forget(**forgotten)  # type: ignore[arg-type]

    assert (gone, len(list(filter(known, [await results.get(each) for each in kept])))) == (3 - left, left)


async def test_results_that_do_not_fit_make_room(clock: Clock) -> None:
    results = MemoryResults(most_bytes=30, clock=clock)
    await results.put(question("old"), {"text": "x" * 10}, timedelta(seconds=5))

    await results.put(question("new"), {"text": "x" * 10}, timedelta(seconds=5))

    assert await results.get(question("old")) is None
    assert await results.get(question("new")) is not None


async def test_a_result_that_is_too_big_is_not_kept(results: ResultCache) -> None:
    await results.put(question(), {"text": "x" * LARGEST}, timedelta(seconds=5))

    assert await results.get(question()) is None


def test_a_fingerprint_does_not_depend_on_the_order_of_keys_and_does_on_everything_else() -> None:
    assert fingerprint("t", {"a": 1, "b": {"c": 1, "d": 2}}, [1]) == fingerprint(
        "t", {"b": {"d": 2, "c": 1}, "a": 1}, [1]
    )
    assert (
        len({fingerprint("t", {}, 1), fingerprint("u", {}, 1), fingerprint("t", {"a": 1}, 1), fingerprint("t", {}, 2)})
        == 4
    )
    assert fingerprint("t", {}, 2**70) != fingerprint("t", {}, 2**70 + 1)
