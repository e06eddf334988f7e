from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from flo.dev.restarts import deaths_in_row, how_it_ended, pause_before_restart


@given(st.integers(min_value=1, max_value=10_000))
def test_a_pause_never_shrinks_with_more_deaths_and_is_never_long(deaths: int) -> None:
    pause = pause_before_restart(deaths)

    assert timedelta(0) < pause <= pause_before_restart(deaths + 1) <= timedelta(seconds=10)


def test_a_first_death_is_mended_at_once() -> None:
    assert pause_before_restart(1) <= timedelta(milliseconds=100)


def test_a_long_life_makes_the_next_death_a_first_one() -> None:
    assert deaths_in_row(7, lived=timedelta(minutes=1)) == 1
    assert deaths_in_row(7, lived=timedelta(seconds=1)) == 8


def test_an_end_is_told_in_words() -> None:
    assert how_it_ended(3) == "ended with exit code 3"
    assert how_it_ended(-9) == "was killed by SIGKILL"
