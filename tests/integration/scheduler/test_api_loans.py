"""Attempts that are lent: who gets their order, how long they keep their run, and who says how they ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from conftest import Api
from sqlalchemy import select, update

from dispatch.claims import Claim, LostClaim
from dispatch.store.loans import loans
from dispatch.store.release import request_cancel
from dispatch.store.retention import Retention, prune_rest
from dispatch.store.runs import runs
from scheduler.reaper import reap_lost
from schemas.catalog import load_catalog
from schemas.outcome import Away, ErrorKind, Failed, Outcome, Retry, RunError, Succeeded
from schemas.run import EventType, Happening, RunStatus
from schemas.settings import ExecutionMode
from schemas.validation import read_document
from tests.making import NO_OP
from workers.app_limits import StoredLimits
from workers.engine.sink import EventSink, MemorySink
from workers.executors.base import RunOrder
from workers.executors.http.signing import StoredSigning
from workers.executors.loan import Loan, LoanBook
from workers.runner.away.attempt import execute_away
from workers.runner.away.line import Refused

SOON = timedelta(minutes=1)
LEASE = timedelta(seconds=10)
DOCUMENT, _ = read_document(
    NO_OP, catalog=load_catalog(ExecutionMode.SANDBOX_PROCESS), max_inline_http=timedelta(minutes=5)
)


@dataclass
class Lender:
    """A worker that lends the attempt it has claimed, and those who execute it elsewhere."""

    api: Api
    book: LoanBook
    claim: Claim
    executed: list[RunOrder] = field(default_factory=list)

    @property
    def order(self) -> RunOrder:
        claim = self.claim
        return RunOrder(
            run_id=claim.run_id, app="shop", flow="greet", version=1, attempt=claim.attempt, document=DOCUMENT,
            payload=claim.payload, backend_config={},
        )  # fmt: skip

    async def lend(self, *, until: timedelta = SOON, let_go: bool = True) -> None:
        loan = Loan(backend="kubernetes_job", handle=f"job-{self.claim.attempt}", until=datetime.now(UTC) + until)
        await self.book.lend(self.order, MemorySink(), loan)
        if let_go:
            status = await self.api.spine.writer.record(self.claim, Away(), events=(), last_seq=self.claim.last_seq)
            assert status is RunStatus.RUNNING

    async def post(self, path: str, **body: Any) -> httpx.Response:
        token = await self.book.token(self.order, begins_within=SOON)
        headers = {"Authorization": f"Bearer {token}"}
        return await self.api.send("POST", f"/api/v1/execution/{path}", json=body, headers=headers)

    async def away(self, executor: str, outcome: Outcome) -> Outcome | None:
        """Execute the attempt elsewhere: one line of log, and this end."""

        async def execute(order: RunOrder, limits: object, events: EventSink) -> Outcome:
            self.executed.append(order)
            events.emit(Happening(EventType.LOG, {"level": "info", "message": "here"}))
            await events.flush()
            return outcome

        token = await self.book.token(self.order, begins_within=SOON)
        return await execute_away("http://flo", token, executor, execute, http=self.api.client)

    async def run_out(self) -> None:
        async with self.api.spine.store.write() as connection:
            await connection.execute(update(loans).values(until=datetime.now(UTC) - SOON))

    async def status(self) -> str:
        async with self.api.spine.store.read() as connection:
            return str(await connection.scalar(select(runs.c.status).where(runs.c.id == self.claim.run_id)))

    async def until(self) -> datetime | None:
        async with self.api.spine.store.read() as connection:
            return (await connection.execute(select(loans.c.until))).scalar_one_or_none()

    async def reaped(self) -> int:
        return await reap_lost(self.api.spine.store, lease=LEASE)


@pytest.fixture
async def lender(shop: Api) -> AsyncIterator[Lender]:
    spine = shop.spine
    book = LoanBook(spine.store, spine.writer, StoredLimits(spine.store), StoredSigning(spine.settings, spine.store))
    yield Lender(shop, book, await shop.take(await shop.start()))


async def test_a_lent_attempt_is_executed_elsewhere_and_its_run_ends(lender: Lender) -> None:
    await lender.lend()

    outcome = await lender.away("pod-1", Succeeded(result=42))

    assert outcome == Succeeded(result=42)
    shown = (await lender.api.send("GET", f"/api/v1/runs/{lender.claim.run_id}")).json()
    assert (shown["status"], shown["result"]) == ("succeeded", 42)
    history = await lender.api.spine.feed.read(lender.claim.run_id)
    assert [event.happening.type for event in history][-2:] == [EventType.LOG, EventType.RUN_COMPLETED]
    assert [event.seq for event in history] == list(range(1, len(history) + 1))
    assert lender.executed[0].payload == lender.claim.payload
    assert await lender.until() is None


async def test_the_reaper_leaves_a_lent_attempt_alone_whatever_became_of_its_worker(lender: Lender) -> None:
    await lender.lend(let_go=False)
    assert (await lender.reaped(), await lender.status()) == (0, "running")


async def test_an_attempt_whose_loan_has_run_out_is_given_to_somebody_else(lender: Lender) -> None:
    await lender.lend()
    await lender.run_out()

    assert (await lender.reaped(), await lender.status()) == (1, "queued")
    assert (await lender.post("order", executor="pod-1")).status_code == 409
    with pytest.raises(Refused):
        await lender.away("pod-1", Succeeded(result=1))
    assert lender.executed == []


async def test_only_the_first_process_that_asks_gets_the_order(lender: Lender) -> None:
    await lender.lend()

    answers = [await lender.post("order", executor=one) for one in ("pod-1", "pod-2", "pod-1")]

    assert [answer.status_code for answer in answers] == [200, 409, 200]
    assert "pod-1 already" in answers[1].json()["detail"]
    assert answers[0].json()["order"] == answers[2].json()["order"]


async def test_each_call_back_makes_the_loan_last(lender: Lender) -> None:
    await lender.lend(until=timedelta(seconds=1))
    await lender.post("order", executor="pod-1")
    taken = await lender.until()
    await lender.post("progress")
    renewed = await lender.until()

    assert taken is not None and renewed is not None
    assert datetime.now(UTC) + timedelta(seconds=5) < taken < renewed


async def test_a_process_that_took_no_order_does_not_make_the_loan_last(lender: Lender) -> None:
    await lender.lend()
    before = await lender.until()
    await lender.post("progress")
    assert await lender.until() == before


async def test_an_attempt_that_lost_its_run_can_not_be_lent(lender: Lender) -> None:
    await lender.api.spine.writer.record(
        lender.claim, Retry(after=timedelta(0), reason="lost"), events=(), last_seq=lender.claim.last_seq
    )
    with pytest.raises(LostClaim):
        await lender.lend()


async def test_a_run_that_nobody_has_begun_is_cancelled_at_once(lender: Lender) -> None:
    await lender.lend()
    async with lender.api.spine.store.write() as connection:
        assert await request_cancel(connection, lender.claim.run_id, "enough") is RunStatus.CANCELLED
    assert (await lender.post("order", executor="pod-1")).status_code == 409


async def test_a_run_that_somebody_has_begun_hears_that_it_is_to_be_stopped(lender: Lender) -> None:
    await lender.lend()
    await lender.post("order", executor="pod-1")
    async with lender.api.spine.store.write() as connection:
        assert await request_cancel(connection, lender.claim.run_id, "enough") is RunStatus.RUNNING
    assert (await lender.post("progress")).json()["cancel"] == "enough"


async def test_an_end_is_refused_while_events_are_missing(lender: Lender) -> None:
    await lender.lend()
    last = lender.claim.last_seq
    answer = await lender.post("outcome", outcome={"is": "succeeded", "result": 1}, last_seq=last + 1)
    assert answer.status_code == 409
    assert "send the events that are missing" in answer.json()["detail"]


@pytest.mark.parametrize("outcome", [{"is": "happy"}, {}, {"is": "failed", "error": 1}, {"is": "parked", "waits": []}])
async def test_an_end_that_is_none_is_refused(lender: Lender, outcome: dict[str, Any]) -> None:
    await lender.lend()
    assert (await lender.post("outcome", outcome=outcome, last_seq=lender.claim.last_seq)).status_code == 409
    assert await lender.status() == "running"


async def test_an_end_that_is_told_twice_counts_once(lender: Lender) -> None:
    await lender.lend()
    told = {"outcome": {"is": "succeeded", "result": 1}, "last_seq": lender.claim.last_seq}
    answers = [(await lender.post("outcome", **told)).json() for _ in range(2)]
    assert [(answer["accepted"], answer["status"]) for answer in answers] == [
        (True, "succeeded"), (False, "succeeded")
    ]  # fmt: skip


async def test_what_nobody_there_can_tell_is_settled_for_them(lender: Lender) -> None:
    await lender.lend()
    await lender.post("order", executor="pod-1")
    failed = Failed(error=RunError(kind=ErrorKind.MEMORY_EXCEEDED, message="the pod needed too much"))

    (lent,) = await lender.book.open("kubernetes_job")
    status = await lender.book.settle(lent.run_id, lent.attempt, failed)

    assert (lent.handle, lent.taken_by, lent.cancel_reason) == ("job-1", "pod-1", None)
    assert status is RunStatus.MEMORY_EXCEEDED
    assert await lender.book.settle(lent.run_id, lent.attempt, failed) is None
    assert await lender.book.open("kubernetes_job") == []


async def test_loans_that_are_over_are_swept(lender: Lender) -> None:
    await lender.lend()
    await lender.api.spine.writer.record(lender.claim, Succeeded(result=1), events=(), last_seq=None)
    keep = Retention(runs=None, dead_letters=None)
    async with lender.api.spine.store.write() as connection:
        assert await connection.run_sync(lambda plain: prune_rest(plain, keep, most=10)) == 1
    assert await lender.until() is None
