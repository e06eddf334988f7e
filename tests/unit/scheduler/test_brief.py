"""The short memory in front of look-ups."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from scheduler.brief import Brief

LONG = timedelta(hours=1)


class Counting:
    def __init__(self):
        self.asked = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, key):
        self.asked.append(key)
        await self.gate.wait()
        return f"{key}{len(self.asked)}"


async def test_an_answer_is_remembered():
    look_up = Counting()
    brief = Brief(look_up, lasts=LONG)

    answers = [await brief.get("a"), await brief.get("a")]

    assert answers == ["a1", "a1"]


async def test_an_answer_is_asked_for_again_when_its_time_is_over():
    brief = Brief(Counting(), lasts=timedelta(0))

    answers = [await brief.get("a"), await brief.get("a")]

    assert answers == ["a1", "a2"]


async def test_those_who_ask_together_share_one_look_up():
    look_up = Counting()
    brief = Brief(look_up, lasts=LONG)

    answers = await asyncio.gather(*(brief.get("a") for _ in range(20)))

    assert set(answers) == {"a1"}


async def test_one_who_goes_away_takes_the_answer_from_no_one():
    look_up = Counting()
    look_up.gate.clear()
    brief = Brief(look_up, lasts=LONG)
    first, second = (asyncio.ensure_future(brief.get("a")) for _ in range(2))
    await asyncio.sleep(0)

    first.cancel()
    look_up.gate.set()

    assert await second == "a1"


async def test_what_was_asked_before_a_change_is_not_remembered_after_it():
    look_up = Counting()
    look_up.gate.clear()
    brief = Brief(look_up, lasts=LONG)
    before = asyncio.ensure_future(brief.get("a"))
    await asyncio.sleep(0)

    brief.forget()
    look_up.gate.set()
    await before

    assert await brief.get("a") == "a2"


async def test_an_error_is_not_remembered():
    answers = iter([ValueError("away"), "a"])

    async def look_up(key):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    brief = Brief(look_up, lasts=LONG)
    with pytest.raises(ValueError, match="away"):
        await brief.get("a")

    assert await brief.get("a") == "a"


async def test_made_up_keys_do_not_fill_the_memory():
    brief = Brief(Counting(), lasts=LONG)

    for number in range(10_050):
        await brief.get(str(number))

    assert len(brief._known) == 10_000
