"""Who is guilty when a host dies."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from schemas.outcome import ErrorKind
from workers.sandboxes.base import CodeOrder, CodeReturned
from workers.sandboxes.node.jail import HostDeath
from workers.sandboxes.node.seat import MOST_STARTS, SPARE_MB, Death, Flight, Seat, Ward, judge


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def seat_with(
    loop: asyncio.AbstractEventLoop,
    count: int,
    *,
    ward: Ward = Ward.EVERYONE,
    death: Death = Death.UNKNOWN,
    repeats: bool = True,
    **host: Any,
) -> Seat:
    """A dead host with runs in it, each of 64 MB and started once."""
    order = CodeOrder(source="", inputs={}, app="shop", timeout=timedelta(seconds=1), memory_mb=64)
    ended = HostDeath(**{"code": -11, "last_words": "", **host})
    dead: Any = SimpleNamespace(name="V8", death=ended)
    seat = Seat(host=dead, ward=ward, death=death, repeats=repeats)
    for number in range(count):
        flight = Flight(
            id=number, order=order, line=b"", on_log=print, outcome=loop.create_future(), ward=ward, starts=1
        )
        seat.flights[number] = flight
    return seat


def wards(seat: Seat) -> list[Ward]:
    return [ward for _, ward in judge(seat).again]


def sentence(seat: Seat) -> list[ErrorKind]:
    return [outcome.error.kind for _, outcome in judge(seat).guilty]


def test_runs_in_a_host_that_died_start_again_as_suspects(loop: asyncio.AbstractEventLoop) -> None:
    assert wards(seat_with(loop, 3)) == [Ward.SUSPECTS] * 3


def test_a_run_that_was_by_chance_the_only_one_is_a_suspect_too(loop: asyncio.AbstractEventLoop) -> None:
    assert wards(seat_with(loop, 1)) == [Ward.SUSPECTS]


def test_suspects_whose_host_dies_too_start_again_alone(loop: asyncio.AbstractEventLoop) -> None:
    assert wards(seat_with(loop, 3, ward=Ward.SUSPECTS)) == [Ward.ALONE] * 3


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ({"code": -11}, ErrorKind.KILLED),
        ({"code": -9, "last_words": ""}, ErrorKind.LOST),
        ({"code": -9, "last_words": "", "out_of_memory": True}, ErrorKind.MEMORY_EXCEEDED),
        ({"code": -6, "last_words": "FATAL ERROR: ... JavaScript heap out of memory"}, ErrorKind.MEMORY_EXCEEDED),
    ],
)
def test_who_is_alone_in_a_host_that_dies_is_guilty(
    loop: asyncio.AbstractEventLoop, host: dict[str, Any], kind: ErrorKind
) -> None:
    seat = seat_with(loop, 1, ward=Ward.ALONE, **host)
    assert (sentence(seat), wards(seat)) == ([kind], [])


@pytest.mark.parametrize(
    ("death", "kind"), [(Death.TOO_BIG, ErrorKind.MEMORY_EXCEEDED), (Death.HUNG, ErrorKind.TIMED_OUT)]
)
def test_the_only_run_in_a_host_that_we_had_to_kill_is_guilty_at_once(
    loop: asyncio.AbstractEventLoop, death: Death, kind: ErrorKind
) -> None:
    assert sentence(seat_with(loop, 1, death=death)) == [kind]


@pytest.mark.parametrize("death", [Death.TOO_BIG, Death.HUNG])
def test_several_runs_in_a_host_that_we_had_to_kill_are_suspects(loop: asyncio.AbstractEventLoop, death: Death) -> None:
    assert wards(seat_with(loop, 2, death=death)) == [Ward.SUSPECTS] * 2


def test_runs_beside_one_that_would_not_stop_are_innocent(loop: asyncio.AbstractEventLoop) -> None:
    assert wards(seat_with(loop, 2, death=Death.STUCK)) == [Ward.EVERYONE] * 2


def test_a_run_that_has_its_outcome_is_left_alone(loop: asyncio.AbstractEventLoop) -> None:
    seat = seat_with(loop, 1, ward=Ward.ALONE)
    seat.flights[0].settle(CodeReturned(1))
    assert (judge(seat).guilty, judge(seat).again) == ([], [])


def test_a_run_that_loses_its_host_too_often_runs_alone(loop: asyncio.AbstractEventLoop) -> None:
    seat = seat_with(loop, 1, death=Death.STUCK)
    seat.flights[0].starts = MOST_STARTS
    assert wards(seat) == [Ward.ALONE]


@pytest.mark.parametrize("death", [Death.UNKNOWN, Death.STUCK, Death.HUNG, Death.TOO_BIG])
def test_runs_that_may_not_start_twice_are_lost_with_their_host(loop: asyncio.AbstractEventLoop, death: Death) -> None:
    seat = seat_with(loop, 2, death=death, repeats=False)
    assert (sentence(seat), wards(seat)) == ([ErrorKind.LOST] * 2, [])


def test_the_only_run_in_a_host_that_crashed_is_guilty_if_it_may_not_start_twice(
    loop: asyncio.AbstractEventLoop,
) -> None:
    assert sentence(seat_with(loop, 1, repeats=False)) == [ErrorKind.KILLED]


def test_a_second_start_repeats_no_log_line(loop: asyncio.AbstractEventLoop) -> None:
    heard: list[str] = []
    flight = seat_with(loop, 1).flights[0]
    flight.on_log = lambda level, message: heard.append(message)
    flight.log("info", "one")
    flight.logs_seen = 0
    flight.log("info", "one")
    flight.log("info", "two")
    assert heard == ["one", "two"]


def test_the_first_outcome_counts(loop: asyncio.AbstractEventLoop) -> None:
    flight = seat_with(loop, 1).flights[0]
    flight.settle(CodeReturned(1))
    flight.settle(CodeReturned(2))
    assert flight.outcome.result() == CodeReturned(1)


def test_the_memory_that_a_host_may_take_follows_from_its_runs(loop: asyncio.AbstractEventLoop) -> None:
    assert seat_with(loop, 3).memory_allowed_mb() == SPARE_MB + 3 * 2 * 64
