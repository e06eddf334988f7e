from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from dispatch.coalesce import Coalescer


class Batches:
    """Doubles numbers; remembers the batches, and waits in each until it is let go."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.gate = asyncio.Event()

    async def double(self, numbers: Sequence[int]) -> list[int | BaseException]:
        self.seen.append(list(numbers))
        await self.gate.wait()
        return [ValueError(str(number)) if number < 0 else number * 2 for number in numbers]


async def test_what_is_asked_in_the_same_instant_is_one_batch() -> None:
    batches = Batches()
    batches.gate.set()
    doubling = Coalescer(batches.double, most=10)

    answers = await asyncio.gather(*(doubling.submit(number) for number in (1, 2, 3)))

    assert answers == [2, 4, 6]
    assert batches.seen == [[1, 2, 3]]


async def test_what_comes_while_a_batch_is_under_way_gathers_in_the_next() -> None:
    batches = Batches()
    doubling = Coalescer(batches.double, most=10)
    first = doubling.submit(1)
    await asyncio.sleep(0)
    later = [doubling.submit(2), doubling.submit(3)]

    batches.gate.set()
    answers = await asyncio.gather(first, *later)

    assert answers == [2, 4, 6]
    assert batches.seen == [[1], [2, 3]]


async def test_a_batch_takes_no_more_than_it_may() -> None:
    batches = Batches()
    batches.gate.set()
    doubling = Coalescer(batches.double, most=2)

    await asyncio.gather(*(doubling.submit(number) for number in (1, 2, 3)))

    assert batches.seen == [[1, 2], [3]]


async def test_a_bad_item_fails_alone() -> None:
    batches = Batches()
    batches.gate.set()
    doubling = Coalescer(batches.double, most=10)
    good, bad = doubling.submit(1), doubling.submit(-1)

    assert await good == 2
    with pytest.raises(ValueError, match="-1"):
        await bad


async def test_a_failed_batch_is_told_to_each_and_the_next_one_works() -> None:
    async def fail_once(numbers: Sequence[int]) -> Sequence[int]:
        if not failed:
            failed.append(True)
            raise OSError("away")
        return numbers

    failed: list[bool] = []
    echoing: Coalescer[int, int] = Coalescer(fail_once, most=10)
    first, second = echoing.submit(1), echoing.submit(2)

    with pytest.raises(OSError, match="away"):
        await first
    with pytest.raises(OSError, match="away"):
        await second
    assert await echoing.submit(3) == 3


async def test_settle_waits_for_everything_that_was_asked() -> None:
    batches = Batches()
    doubling = Coalescer(batches.double, most=1)
    answers = [doubling.submit(1), doubling.submit(2)]
    batches.gate.set()

    await doubling.settle()

    assert [answer.result() for answer in answers] == [2, 4]
