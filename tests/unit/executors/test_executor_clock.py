from __future__ import annotations

import time

import pytest

from workers.runner.server.clock import AnotherClock, Clock, FarClock


def test_a_time_that_was_told_is_found_again() -> None:
    clock = Clock()
    before = time.monotonic()

    moment = clock.moment(clock.told())

    assert before - 0.001 <= moment <= time.monotonic()


def test_a_time_of_another_executor_is_none_of_this_ones() -> None:
    with pytest.raises(AnotherClock):
        Clock().moment(Clock().told())


def test_what_is_named_from_afar_is_never_later_than_it_is_meant() -> None:
    clock, far = Clock(), FarClock()
    far.learn(clock.told())

    named = far.after(10)

    assert named is not None
    assert time.monotonic() + 9 < clock.moment(named) <= time.monotonic() + 10


def test_an_executor_that_shows_no_clock_has_none() -> None:
    far = FarClock()

    far.learn(None)

    assert (far.is_known, far.after(1)) == (False, None)


def test_an_answer_without_a_clock_changes_nothing() -> None:
    far = FarClock()
    far.learn(Clock().told())

    far.learn(None)

    assert far.is_known


def test_nonsense_is_no_clock() -> None:
    far = FarClock()

    far.learn("a:b")

    assert not far.is_known
