"""Threads for calls that block for as long as a function runs."""

from __future__ import annotations

import asyncio
import threading

import pytest

from workers.executors.awslambda.threads import DaemonThreads, NoRoom


async def test_no_more_calls_are_under_way_than_there_may_be() -> None:
    threads = DaemonThreads(1, name="test")
    go, began = threading.Event(), []

    first = asyncio.create_task(threads.call(go.wait, begins=lambda: began.append(1)))
    second = asyncio.create_task(threads.call(go.wait, begins=lambda: began.append(2)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert began == [1]
    go.set()

    assert await asyncio.gather(first, second) == [True, True]
    assert began == [1, 2]


async def test_a_call_that_nobody_waits_for_any_more_keeps_its_place_until_it_is_over() -> None:
    threads = DaemonThreads(1, name="test")
    go, began = threading.Event(), []
    left = asyncio.create_task(threads.call(go.wait))
    await asyncio.sleep(0)

    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    other = asyncio.create_task(threads.call(lambda: 1, begins=lambda: began.append(1)))
    await asyncio.sleep(0)
    assert began == []
    go.set()

    assert await other == 1


async def test_a_call_that_finds_no_thread_for_a_while_is_not_made() -> None:
    threads = DaemonThreads(1, name="test", patience=0.01)
    go = threading.Event()
    first = asyncio.create_task(threads.call(go.wait))
    await asyncio.sleep(0)

    with pytest.raises(NoRoom):
        await threads.call(lambda: 1)

    go.set()
    assert await first


async def test_what_a_call_raises_is_raised_where_it_is_awaited() -> None:
    def fail() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        await DaemonThreads(1, name="test").call(fail)


async def test_a_process_may_end_while_a_call_is_under_way() -> None:
    alive: list[bool] = []
    go = threading.Event()

    def look() -> None:
        alive.append(threading.current_thread().daemon)
        go.set()

    await DaemonThreads(1, name="test").call(look)

    assert go.is_set()
    assert alive == [True]
