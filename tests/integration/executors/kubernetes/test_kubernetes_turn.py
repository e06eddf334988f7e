"""One worker at a time has the turn; another gets it when the first lets go, dies or can't ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from dispatch.leases import Leadership
from dispatch.store.session import Store
from workers.executors.kubernetes.turn import Turn

LASTS = timedelta(seconds=1)


class Work:
    """Notes when it is begun, and that it was cancelled."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


class Worker:
    def __init__(self, store: Store, name: str) -> None:
        self.work = Work()
        self.leadership = Leadership(store, holder=name, lasts=LASTS)
        self.turn = Turn(self.leadership, "duty", self.work, lasts=LASTS)


@pytest.fixture
async def two(store: Store) -> AsyncIterator[tuple[Worker, Worker]]:
    workers = Worker(store, "one"), Worker(store, "other")
    yield workers
    for worker in workers:
        await worker.turn.aclose()


async def test_the_work_is_done_by_one_and_taken_over_when_it_lets_go(two: tuple[Worker, Worker]) -> None:
    first, second = two
    first.turn.start()
    await first.work.begun.wait()
    second.turn.start()

    await first.turn.aclose()

    await second.work.begun.wait()
    assert first.work.ended.is_set()


async def test_a_worker_that_can_not_ask_any_more_stops_before_another_begins(two: tuple[Worker, Worker]) -> None:
    first, second = two
    first.turn.start()
    await first.work.begun.wait()

    async def away(duty: str) -> bool:
        raise ConnectionError("the database is away")

    first.leadership.hold = away  # type: ignore[method-assign]
    second.turn.start()

    await second.work.begun.wait()
    assert first.work.ended.is_set()


async def test_work_that_breaks_is_begun_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.executors.kubernetes.turn._AGAIN", timedelta(0))
    times = asyncio.Queue[None]()

    async def breaks() -> None:
        times.put_nowait(None)
        raise RuntimeError("broken")

    turn = Turn(Leadership(store, holder="one", lasts=LASTS), "duty", breaks, lasts=LASTS)
    turn.start()

    await times.get()
    await times.get()
    await turn.aclose()
