from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select

from dispatch.bell import LocalBell
from dispatch.claims import Claim, LostClaim
from dispatch.feed import Feed
from dispatch.store.release import request_cancel
from dispatch.store.runs import NewRun, list_attempts, outbox, read_run, redrive
from dispatch.store.session import Store
from dispatch.store.writer import RunWriter
from schemas.errors import Conflict
from schemas.outcome import Cancelled, ErrorKind, Failed, Retry, RunError, Succeeded
from schemas.run import EventType, Happening, RunEvent, RunStatus
from tests.making import new_run


@pytest.fixture
def writer(store: Store) -> RunWriter:
    return RunWriter(store)


async def claim_new(writer: RunWriter, new: NewRun | None = None) -> Claim:
    accepted = await writer.accept(new or new_run())
    claim = await writer.take(accepted.run_id, owner="worker-1", executor="inline")
    assert claim is not None
    return claim


async def status_of(store: Store, run_id: str) -> str:
    async with store.read() as connection:
        row = await read_run(connection, run_id)
    assert row is not None
    return str(row["status"])


async def outbox_of(store: Store, run_id: str) -> list[int]:
    async with store.read() as connection:
        rows = await connection.execute(select(outbox.c.attempt).where(outbox.c.run_id == run_id))
        return [row.attempt for row in rows]


async def test_an_accepted_run_is_queued_with_its_message_in_the_outbox(store: Store, writer: RunWriter) -> None:
    accepted = await writer.accept(new_run())

    assert await status_of(store, accepted.run_id) == "queued"
    assert await outbox_of(store, accepted.run_id) == [1]
    assert accepted.job is not None and accepted.job.task_id == f"{accepted.run_id}.1"


async def test_publishing_clears_the_outbox(store: Store, writer: RunWriter) -> None:
    accepted = await writer.accept(new_run())
    assert accepted.job is not None

    await writer.published([accepted.job])

    assert await outbox_of(store, accepted.run_id) == []


async def test_a_late_receipt_leaves_a_newer_message_in_the_outbox(store: Store, writer: RunWriter) -> None:
    accepted = await writer.accept(new_run())
    claim = await writer.take(accepted.run_id, owner="w", executor="inline")
    assert claim is not None and accepted.job is not None
    await writer.record(claim, Retry(after=timedelta(0), reason="lost"), events=[], last_seq=claim.last_seq)

    await writer.published([accepted.job])

    assert await outbox_of(store, accepted.run_id) == [2]


async def test_of_many_claims_exactly_one_gets_the_run(writer: RunWriter) -> None:
    accepted = await writer.accept(new_run())

    claims = await asyncio.gather(
        *(writer.take(accepted.run_id, owner=f"worker-{n}", executor="inline") for n in range(10))
    )

    assert sum(claim is not None for claim in claims) == 1


async def test_two_processes_never_claim_the_same_run(store: Store, database_url: str) -> None:
    other = await Store.open(database_url)
    ours, theirs = RunWriter(store), RunWriter(other)
    accepted = await asyncio.gather(*(ours.accept(new_run()) for _ in range(50)))

    claims = await asyncio.gather(
        *(pen.take(run.run_id, owner="w", executor="inline") for run in accepted for pen in (ours, theirs))
    )

    await other.aclose()
    assert sum(claim is not None for claim in claims) == 50


async def test_a_result_is_recorded_with_the_last_events(store: Store, writer: RunWriter) -> None:
    claim = await claim_new(writer)
    said = RunEvent(claim.run_id, 2, Happening(EventType.LOG, {"level": "info", "message": "hi"}))

    status = await writer.record(claim, Succeeded(result={"n": 1}), events=[said], last_seq=2)

    events = await Feed(store, LocalBell()).read(claim.run_id)
    assert status is RunStatus.SUCCEEDED
    assert [(event.seq, event.happening.type) for event in events] == [
        (1, "run_queued"),
        (2, "log"),
        (3, "run_completed"),
    ]


async def test_events_of_a_commit_whose_receipt_was_lost_are_written_once(
    store: Store, writer: RunWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await claim_new(writer)
    said = [RunEvent(claim.run_id, seq, Happening(EventType.LOG, {"n": seq})) for seq in (2, 3)]
    transact = store.transact

    async def commit_and_lose_the_receipt(work: Callable[[Connection], Any]) -> Any:
        await transact(work)
        monkeypatch.setattr(store, "transact", transact)
        raise ConnectionResetError

    monkeypatch.setattr(store, "transact", commit_and_lose_the_receipt)

    await writer.append(claim, said[:1])
    await writer.append(claim, said[1:])

    events = await Feed(store, LocalBell()).read(claim.run_id)
    assert [event.seq for event in events] == [1, 2, 3]


async def test_a_stale_attempt_can_write_nothing(store: Store, writer: RunWriter) -> None:
    stale = await claim_new(writer)
    await writer.record(stale, Retry(after=timedelta(0), reason="lost"), events=[], last_seq=1)
    fresh = await writer.take(stale.run_id, owner="worker-2", executor="inline")
    assert fresh is not None and fresh.attempt == 2

    event = RunEvent(stale.run_id, 9, Happening(EventType.LOG, {"message": "late"}))
    with pytest.raises(LostClaim):
        await writer.append(stale, [event])
    with pytest.raises(LostClaim):
        await writer.record(stale, Succeeded(result="stale"), events=[event], last_seq=9)

    assert await status_of(store, stale.run_id) == "running"


async def test_a_final_state_never_changes(store: Store, writer: RunWriter) -> None:
    claim = await claim_new(writer)
    await writer.record(claim, Succeeded(result=1), events=[], last_seq=1)

    with pytest.raises(LostClaim):
        await writer.record(claim, Failed(error=RunError(kind=ErrorKind.USER, message="no")), events=[], last_seq=1)
    async with store.write() as connection:
        assert await request_cancel(connection, claim.run_id, "too late") is RunStatus.SUCCEEDED
    assert await writer.take(claim.run_id, owner="w", executor="inline") is None


async def test_a_run_that_keeps_getting_lost_is_dead_lettered_after_its_last_attempt(
    store: Store, writer: RunWriter
) -> None:
    first = await claim_new(writer, new_run(max_attempts=2))
    lost = Retry(after=timedelta(0), reason="the sandbox died")

    after_first = await writer.record(first, lost, events=[], last_seq=1)
    second = await writer.take(first.run_id, owner="w", executor="inline")
    assert second is not None
    after_second = await writer.record(second, lost, events=[], last_seq=second.last_seq)

    async with store.read() as connection:
        row = await read_run(connection, first.run_id)
        tries = await list_attempts(connection, first.run_id)
    assert (after_first, after_second) == (RunStatus.QUEUED, RunStatus.DEAD)
    assert row is not None and "given up after 2 attempts; the last: the sandbox died" in row["error"]["message"]
    assert [one["outcome"] for one in tries] == ["retry", "dead"]


async def test_a_dead_run_can_be_redriven_and_gets_as_many_attempts_again(store: Store, writer: RunWriter) -> None:
    claim = await claim_new(writer, new_run(max_attempts=1))
    await writer.record(claim, Retry(after=timedelta(0), reason="lost"), events=[], last_seq=1)

    async with store.write() as connection:
        job = await redrive(connection, claim.run_id)
    again = await writer.take(claim.run_id, owner="w", executor="inline")

    assert job is not None and job.attempt == 2
    assert again is not None and (again.attempt, again.max_attempts) == (2, 2)


async def test_only_a_dead_run_can_be_redriven(store: Store, writer: RunWriter) -> None:
    accepted = await writer.accept(new_run())

    async with store.write() as connection:
        with pytest.raises(Conflict, match="only a dead-lettered run can be redriven"):
            await redrive(connection, accepted.run_id)


async def test_the_same_idempotency_key_leads_to_the_same_run(writer: RunWriter) -> None:
    asked = [new_run(idempotency_key="k", request_hash="h") for _ in range(20)]

    answers = await asyncio.gather(*(writer.accept(new) for new in asked))

    assert len({answer.run_id for answer in answers}) == 1
    assert sum(answer.created for answer in answers) == 1


async def test_two_processes_agree_on_an_idempotency_key(store: Store, database_url: str) -> None:
    other = await Store.open(database_url)
    pens = [RunWriter(store), RunWriter(other)]

    answers = await asyncio.gather(
        *(pens[n % 2].accept(new_run(idempotency_key=f"k{n // 4}", request_hash="h")) for n in range(40))
    )

    await other.aclose()
    assert len({answer.run_id for answer in answers}) == 10
    assert sum(answer.created for answer in answers) == 10


async def test_an_idempotency_key_with_another_request_is_a_conflict(writer: RunWriter) -> None:
    await writer.accept(new_run(idempotency_key="k", request_hash="one"))

    with pytest.raises(Conflict, match="came before with another request"):
        await writer.accept(new_run(idempotency_key="k", request_hash="two"))


async def test_a_bad_operation_spoils_no_other_in_its_batch(store: Store, writer: RunWriter) -> None:
    first = new_run()
    twin = new_run(id=first.id)
    good = new_run()

    answers = await asyncio.gather(
        writer.accept(first), writer.accept(twin), writer.accept(good), return_exceptions=True
    )

    assert isinstance(answers[1], Exception)
    assert await status_of(store, good.id) == "queued"


async def test_a_queued_run_is_cancelled_at_once_and_is_not_to_be_claimed(store: Store, writer: RunWriter) -> None:
    accepted = await writer.accept(new_run())

    async with store.write() as connection:
        status = await request_cancel(connection, accepted.run_id, "changed my mind")

    assert status is RunStatus.CANCELLED
    assert await writer.take(accepted.run_id, owner="w", executor="inline") is None
    assert await outbox_of(store, accepted.run_id) == []


async def test_a_running_run_is_asked_to_stop_and_its_worker_records_it(store: Store, writer: RunWriter) -> None:
    claim = await claim_new(writer)
    async with store.write() as connection:
        asked = await request_cancel(connection, claim.run_id, "changed my mind")

    status = await writer.record(claim, Cancelled(reason="changed my mind"), events=[], last_seq=1)

    assert (asked, status) == (RunStatus.RUNNING, RunStatus.CANCELLED)


async def test_a_run_for_later_is_left_to_the_relay(store: Store, writer: RunWriter) -> None:
    accepted = await writer.accept(new_run(run_at=datetime.now(UTC) + timedelta(hours=1)))

    assert accepted.job is None
    assert await outbox_of(store, accepted.run_id) == [1]


async def test_payloads_come_back_exactly(store: Store, writer: RunWriter) -> None:
    payload = {"text": "nul \u0000 and 🚀", "big": 2**53, "deep": [[{"a": None}]], "float": 0.1}
    claim = await claim_new(writer, new_run(payload=payload))

    assert claim.payload == payload
