"""A dispatcher on SQL in a file, with everything around it played by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from dispatch.bell import LocalBell
from dispatch.feed import Feed
from dispatch.store.release import lose_runs
from dispatch.store.runs import read_run, runs
from dispatch.store.session import Store
from dispatch.store.writer import RunWriter
from schemas.catalog import load_catalog
from schemas.errors import NotFound, Unavailable
from schemas.flow import FlowDocument
from schemas.job import Job
from schemas.outcome import Outcome, Succeeded
from schemas.run import RunStatus
from schemas.validation import read_document
from tests.making import NO_OP, new_run
from workers.dispatcher import Dispatcher
from workers.engine.sink import EventSink
from workers.executors.base import Executor, RunOrder
from workers.tenure import Lease

Body = Callable[[RunOrder, EventSink], Awaitable[Outcome]]


class Played:
    """An executor made from a function."""

    default = "inline"

    def __init__(self, body: Body) -> None:
        self._body = body
        self.orders: list[RunOrder] = []

    async def run(self, order: RunOrder, events: EventSink) -> Outcome:
        self.orders.append(order)
        return await self._body(order, events)

    async def aclose(self) -> None: ...

    def choose(self, mode: str | None) -> Executor:
        if mode is not None:
            raise Unavailable(f"no executor {mode!r} here")
        return self


class OneDocument:
    def __init__(self, document: FlowDocument) -> None:
        self._document = document

    async def read(self, app: str, flow: str, version: int) -> FlowDocument:
        if version != 1:
            raise NotFound(f"no version {version}")
        return self._document


class Noted:
    """A receipt that remembers."""

    def __init__(self) -> None:
        self.claimed: list[bool] = []
        self.ends: asyncio.Queue[RunStatus | None] = asyncio.Queue()

    def decided(self, claimed: bool) -> None:
        self.claimed.append(claimed)

    def finished(self, status: RunStatus | None) -> None:
        self.ends.put_nowait(status)


class Rig:
    """A dispatcher with one slot, and what it is made of."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.writer = RunWriter(store)
        self.feed = Feed(store, LocalBell())
        document, _ = read_document(NO_OP, catalog=load_catalog(), max_inline_http=timedelta(seconds=300))
        self._documents = OneDocument(document)

    def dispatcher(
        self, body: Body, *, concurrency: int = 1, lease: timedelta | Lease = timedelta(hours=1)
    ) -> Dispatcher:
        return Dispatcher(
            owner="worker-1",
            writer=self.writer,
            feed=self.feed,
            documents=self._documents,
            executors=Played(body),
            concurrency=concurrency,
            lease=lease if isinstance(lease, Lease) else Lease(lease),
        )

    async def accept(self, **changes: object) -> Job:
        accepted = await self.writer.accept(new_run(**changes))
        assert accepted.job is not None
        return accepted.job

    async def status(self, job: Job) -> str:
        async with self.store.read() as connection:
            row = await read_run(connection, job.run_id)
        assert row is not None
        return str(row["status"])

    async def lose_worker(self, job: Job) -> None:
        """Have an attempt at this run begun elsewhere, by a worker that dies of it."""
        assert await self.writer.take(job.run_id, owner="worker-0", executor="inline") is not None
        async with self.store.write() as connection:
            await lose_runs(connection, runs.c.id == job.run_id, reason="its worker stopped beating", most=1)


async def succeed(order: RunOrder, events: EventSink) -> Outcome:
    return Succeeded(result=order.payload)


def held_open() -> tuple[Body, asyncio.Event, asyncio.Event]:
    """An executor's body that says when it has begun, and when it was killed."""
    begun, killed = asyncio.Event(), asyncio.Event()

    async def body(order: RunOrder, events: EventSink) -> Outcome:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            killed.set()
        raise AssertionError

    return body, begun, killed
