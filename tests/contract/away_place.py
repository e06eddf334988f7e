"""What an executor that lets go of its runs needs around it, for the contract: an API, a store, and one who waits.

`Followed` plays the dispatcher to such an executor: it claims the run in SQL, hands it over, and follows what the API
writes down. What one transaction has written is flushed before the next is told: that is when it became durable.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import uvicorn
from sqlalchemy import delete, select, update

from dispatch.bell import LocalBell, Topic
from dispatch.claims import Claim, LostClaim
from dispatch.queues.memory import MemoryQueue
from dispatch.store.release import request_cancel
from dispatch.store.runs import attempts, insert_runs, outbox, run_events, runs
from dispatch.store.session import Store
from scheduler.app import create_app
from scheduler.spine import Spine, open_spine
from schemas.outcome import Away, Failed, Outcome, Retry, RunError, Succeeded
from schemas.run import EventType
from schemas.settings import Settings, load_settings
from tests.making import new_run
from tests.servers import listening_socket
from workers.app_limits import LimitsOfApps
from workers.engine.sink import EventSink, MemorySink
from workers.executors.base import Executor, RunOrder
from workers.executors.http.signing import open_signing
from workers.executors.loan import LoanBook
from workers.runner.wire import TOLD

_AT_ONCE = timedelta(0)


@dataclass(frozen=True)
class AwayApi:
    """A running API, for executors to call back."""

    settings: Settings
    spine: Spine
    book: LoanBook

    @property
    def store(self) -> Store:
        return self.spine.store


@asynccontextmanager
async def serving_api(home: Path, limits: LimitsOfApps, **variables: str) -> AsyncIterator[AwayApi]:
    """Serve an API of the test's own, in this loop, on a free port, where executors elsewhere reach it."""
    host = os.environ.get("FLO_TEST_HOST", "127.0.0.1")
    listening = listening_socket(host)
    url = f"http://{host}:{listening.getsockname()[1]}"
    settings = load_settings({"FLO_HOME": str(home), "FLO_URL": url, "FLO_V8_HOSTS": "1", **variables})
    async with AsyncExitStack() as closing:
        spine = await closing.enter_async_context(open_spine(settings, queue=MemoryQueue(), bell=LocalBell()))
        config = uvicorn.Config(create_app(settings, spine=spine), access_log=False, log_config=None)
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        closing.push_async_callback(server.stop, serving)
        yield AwayApi(settings, spine, LoanBook(spine.store, spine.writer, limits, open_signing(settings, spine.store)))


class _Server(uvicorn.Server):
    """uvicorn, but it leaves signals to pytest."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def stop(self, serving: asyncio.Task[None]) -> None:
        self.should_exit = True
        await serving


class Followed(Executor):
    """An executor whose runs are waited for."""

    def __init__(self, executor: Executor, api: AwayApi, *, prepared: Callable[[RunOrder], RunOrder]) -> None:
        """`prepared` gives an order what this executor needs."""
        self._executor = executor
        self._api = api
        self._prepared = prepared
        self._written: dict[str, asyncio.Queue[int]] = defaultdict(asyncio.Queue)
        api.spine.bell.listen(Topic.EVENTS, self._hear)

    async def run(self, order: RunOrder, events: EventSink) -> Outcome:
        claim = await self._claim(order)
        try:
            outcome = await self._executor.run(self._prepared(order), MemorySink())
            if not isinstance(outcome, Away):
                return outcome
            with suppress(LostClaim):  # its end may be there already
                await self._api.spine.writer.record(claim, outcome, events=(), last_seq=None)
            return await self._follow(claim, events)
        except asyncio.CancelledError:
            await self._cancel(order.run_id)
            raise
        except LostClaim:
            await self._fence(order)
            raise

    async def aclose(self) -> None:
        await self._executor.aclose()

    async def _claim(self, order: RunOrder) -> Claim:
        """Have the run queued in SQL, with the attempts that were made of it, and take it."""
        store, run_id = self._api.store, order.run_id
        async with store.write() as connection:
            for column in (run_events.c.run_id, outbox.c.run_id, attempts.c.run_id, runs.c.id):
                await connection.execute(delete(column.table).where(column == run_id))
            row: Any = {"id": run_id, "app": order.app, "flow": order.flow, "payload": order.payload, "max_attempts": 9}
            await insert_runs(connection, [new_run(**row)])
            await connection.execute(update(runs).where(runs.c.id == run_id).values(attempt=order.attempt - 1))
        claim = await self._api.spine.writer.take(run_id, owner="wrk_test", executor="test")
        assert claim is not None
        assert claim.attempt == order.attempt
        return claim

    async def _follow(self, claim: Claim, events: EventSink) -> Outcome:
        """Tell what the API has written, transaction by transaction, until the attempt is over."""
        told = claim.last_seq
        while True:
            upto = await self._written[claim.run_id].get()
            for event in await self._api.spine.feed.read(claim.run_id, after=told, limit=max(upto - told, 0)):
                told, said = event.seq, event.happening
                if said.type in TOLD:
                    events.emit(said)
                elif said.type is EventType.RUN_COMPLETED:
                    return _end(cast(dict[str, Any], said.data))
                elif said.type is EventType.RUN_QUEUED:
                    return Retry(after=_AT_ONCE, reason=str(said.data["reason"]))
            await events.flush()

    async def _cancel(self, run_id: str) -> None:
        """Ask for the run to stop, and wait until it has."""
        async with self._api.store.write() as connection:
            await connection.execute(update(runs).where(runs.c.id == run_id).values(owner=None))
            await request_cancel(connection, run_id, "cancelled by the test")
        await self._until_over(run_id)

    async def _fence(self, order: RunOrder) -> None:
        """Give the run to another attempt."""
        async with self._api.store.write() as connection:
            await connection.execute(update(runs).where(runs.c.id == order.run_id).values(attempt=order.attempt + 1))

    async def _until_over(self, run_id: str) -> None:
        written = self._written[run_id]
        while True:
            async with self._api.store.read() as connection:
                status = await connection.scalar(select(runs.c.status).where(runs.c.id == run_id))
            if status != "running":
                return
            await written.get()

    def _hear(self, hint: object) -> None:
        for run_id, seq in cast(list[tuple[str, int]], hint):
            self._written[run_id].put_nowait(seq)


def _end(said: dict[str, Any]) -> Outcome:
    if said["error"] is None:
        return Succeeded(result=said["result"])
    return Failed(error=RunError.model_validate(said["error"]))
