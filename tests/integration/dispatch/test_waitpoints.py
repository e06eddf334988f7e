"""Runs that wait without a worker, on both databases: parked, answered, woken, and never twice."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from dispatch.bell import LocalBell
from dispatch.claims import Claim, LostClaim
from dispatch.feed import Feed
from dispatch.store.limits import put_limits
from dispatch.store.release import lose_runs, request_cancel
from dispatch.store.runs import NewRun, list_attempts, outbox, read_run, runs
from dispatch.store.session import Store
from dispatch.store.waitpoints import Closed, answer, read_open, waitpoints
from dispatch.store.writer import RunWriter
from scheduler.waking import wake
from schemas.app import AppLimits
from schemas.errors import Conflict, NotFound
from schemas.job import Job
from schemas.json import JSONObject
from schemas.outcome import ChildCall, ChildNode, ErrorKind, Failed, Parked, Retry, RunError, Succeeded, Wait, WaitKind
from schemas.run import EventType, Happening, RunEvent, RunStatus
from schemas.waitpoint import child_waitpoint, new_token, opening, waitpoint_of
from tests.making import add_flow, new_run

LATER = timedelta(hours=1)
YES: JSONObject = {"approved": True}


class Rig:
    """A store, and a hand that plays worker, scheduler and the person who answers."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.called: list[Job] = []
        self.writer = RunWriter(store, on_called=self.called.extend, served=["flow"])
        self.feed = Feed(store, LocalBell())

    async def claim(self, new: NewRun | None = None) -> Claim:
        accepted = await self.writer.accept(new or new_run())
        return await self.take(accepted.run_id)

    async def take(self, run_id: str) -> Claim:
        claim = await self.writer.take(run_id, owner="worker-1", executor="inline")
        assert claim is not None
        return claim

    async def park(self, claim: Claim, *waits: Wait) -> RunStatus:
        return await self.writer.record(claim, Parked(waits=waits), events=[], last_seq=claim.last_seq)

    async def finish(self, claim: Claim, outcome: Any = None) -> RunStatus:
        done = outcome or Succeeded(result={"done": True})
        return await self.writer.record(claim, done, events=[], last_seq=claim.last_seq)

    async def open_ahead(self, claim: Claim, waitpoint: str) -> Claim:
        said = Happening(EventType.DATA, {"waitpoint": opening(waitpoint, WaitKind.WEBHOOK)}, "link")
        await self.writer.append(claim, [RunEvent(claim.run_id, claim.last_seq + 1, said)])
        row = await self.row(claim.run_id)
        return Claim(**{**{name: getattr(claim, name) for name in Claim.__slots__}, "last_seq": row["last_seq"]})

    async def answer(self, waitpoint: str, said: JSONObject = YES) -> tuple[str, Job | None]:
        return await self.store.transact(partial(answer, waitpoint=waitpoint, said=said, reason="answered"))

    async def row(self, run_id: str) -> Any:
        async with self.store.read() as connection:
            return await read_run(connection, run_id)

    async def status(self, run_id: str) -> str:
        return str((await self.row(run_id))["status"])

    async def messages(self, run_id: str) -> list[int]:
        async with self.store.read() as connection:
            found = await connection.execute(select(outbox.c.attempt).where(outbox.c.run_id == run_id))
            return [row.attempt for row in found]

    async def told(self, run_id: str, kind: EventType) -> list[JSONObject]:
        return [event.happening.data for event in await self.feed.read(run_id) if event.happening.type is kind]

    async def children(self, run_id: str) -> list[str]:
        async with self.store.read() as connection:
            found = await connection.execute(select(runs.c.id).where(runs.c.parent_run == run_id))
            return [row.id for row in found]

    async def wake(self, now: datetime | None = None) -> int:
        return await wake(self.store, LocalBell(), now=now)


@pytest.fixture
def rig(store: Store) -> Rig:
    return Rig(store)


def webhook(*, until: datetime | None = None) -> Wait:
    waitpoint = waitpoint_of(new_token())
    return Wait(node_id="hook", kind=WaitKind.WEBHOOK, waitpoint=waitpoint, until=until, url="http://flo/x")


def delay(until: datetime) -> Wait:
    return Wait(node_id="later", kind=WaitKind.DELAY, until=until)


def call(claim: Claim, **more: Any) -> Wait:
    waitpoint = child_waitpoint(claim.run_id, "call", 1)
    child = ChildCall(**{"flow": "greet", "payload": {"n": 1}, **more})
    return Wait(node_id="call", kind=WaitKind.CHILD, waitpoint=waitpoint, child=child)


def pod(claim: Claim, **given: Any) -> Wait:
    waitpoint = child_waitpoint(claim.run_id, "say", 1)
    return Wait(node_id="say", kind=WaitKind.CHILD, waitpoint=waitpoint, child=ChildNode(given=given))


async def test_a_parked_run_holds_no_worker_and_says_what_it_waits_for(rig: Rig) -> None:
    claim, wait = await rig.claim(), webhook()

    assert await rig.park(claim, wait) is RunStatus.WAITING

    row = await rig.row(claim.run_id)
    assert (row["status"], row["owner"], row["run_at"]) == ("waiting", None, None)
    assert await rig.told(claim.run_id, EventType.RUN_WAITING) == [
        {"reason": 'webhook at "hook"', "until": None,
         "waits": [{"node_id": "hook", "kind": "webhook", "until": None, "url": "http://flo/x"}]}
    ]  # fmt: skip


async def test_an_answer_queues_the_run_and_stands_in_its_events(rig: Rig) -> None:
    claim, wait = await rig.claim(), webhook()
    await rig.park(claim, wait)
    assert wait.waitpoint is not None

    run_id, job = await rig.answer(wait.waitpoint)

    assert (run_id, job is not None) == (claim.run_id, True)
    assert await rig.status(claim.run_id) == "queued"
    assert await rig.messages(claim.run_id) == [2]
    assert await rig.told(claim.run_id, EventType.RUN_RESUMED) == [
        {"reason": "answered", "waitpoint": wait.waitpoint, "answer": YES}
    ]


async def test_the_fence_goes_up_with_each_resumption_and_the_allowance_of_attempts_with_it(rig: Rig) -> None:
    claim, wait = await rig.claim(new_run(max_attempts=1)), webhook()
    await rig.park(claim, wait)
    await rig.answer(str(wait.waitpoint))

    again = await rig.take(claim.run_id)

    assert (again.attempt, again.max_attempts) == (2, 2)
    with pytest.raises(LostClaim):
        await rig.finish(claim)
    assert await rig.finish(again, Retry(after=timedelta(0), reason="lost")) is RunStatus.DEAD


async def test_an_answer_that_comes_before_the_run_is_parked_is_kept_and_seen_then(rig: Rig) -> None:
    claim, wait = await rig.claim(), webhook()
    assert wait.waitpoint is not None
    claim = await rig.open_ahead(claim, wait.waitpoint)

    assert await rig.answer(wait.waitpoint) == (claim.run_id, None)
    assert await rig.park(claim, wait) is RunStatus.QUEUED

    assert [job.attempt for job in rig.called] == [2]
    assert [said["answer"] for said in await rig.told(claim.run_id, EventType.RUN_RESUMED)] == [YES]
    assert (await rig.take(claim.run_id)).attempt == 2


async def test_an_answer_that_comes_while_the_worker_is_dead_is_seen_by_the_next(rig: Rig) -> None:
    claim, wait = await rig.claim(), webhook()
    assert wait.waitpoint is not None
    await rig.open_ahead(claim, wait.waitpoint)
    await rig.answer(wait.waitpoint)
    async with rig.store.write() as connection:
        await lose_runs(connection, runs.c.id == claim.run_id, reason="killed", most=10)

    second = await rig.take(claim.run_id)

    assert await rig.park(second, wait) is RunStatus.QUEUED


async def test_of_answers_and_parking_in_any_order_none_is_lost(rig: Rig) -> None:
    claims = [await rig.claim() for _ in range(10)]
    waits = [webhook() for _ in claims]
    opened = [await rig.open_ahead(claim, str(wait.waitpoint)) for claim, wait in zip(claims, waits, strict=True)]

    parking = [rig.park(claim, wait) for claim, wait in zip(opened, waits, strict=True)]
    answering = [rig.answer(str(wait.waitpoint)) for wait in waits]
    await asyncio.gather(*parking, *answering)

    assert {await rig.status(claim.run_id) for claim in claims} == {"queued"}
    assert [len(await rig.told(claim.run_id, EventType.RUN_RESUMED)) for claim in claims] == [1] * 10


async def test_a_second_answer_is_refused(rig: Rig) -> None:
    claim, wait = await rig.claim(), webhook()
    await rig.park(claim, wait)
    await rig.answer(str(wait.waitpoint))

    with pytest.raises(Conflict, match="can be only once"):
        await rig.answer(str(wait.waitpoint))


async def test_of_many_who_answer_at_once_one_is_heard(rig: Rig) -> None:
    claim, wait = await rig.claim(), webhook()
    await rig.park(claim, wait)

    answers = await asyncio.gather(*(rig.answer(str(wait.waitpoint)) for _ in range(8)), return_exceptions=True)

    assert sum(isinstance(one, tuple) for one in answers) == 1
    assert sum(isinstance(one, Conflict) for one in answers) == 7
    assert len(await rig.told(claim.run_id, EventType.RUN_RESUMED)) == 1


async def test_an_answer_to_a_run_that_is_over_or_out_of_time_is_refused(rig: Rig) -> None:
    over, late = await rig.claim(), await rig.claim()
    one, other = webhook(), webhook(until=datetime.now(UTC) - LATER)
    await rig.park(over, one)
    await rig.park(late, other)
    async with rig.store.write() as connection:
        await request_cancel(connection, over.run_id, "enough")

    with pytest.raises(Closed, match="is cancelled"):
        await rig.answer(str(one.waitpoint))
    with pytest.raises(Closed, match="was awaited until"):
        await rig.answer(str(other.waitpoint))
    with pytest.raises(NotFound):
        await rig.answer(waitpoint_of("no such token"))


async def test_only_the_hash_of_a_token_is_kept_for_look_up(rig: Rig) -> None:
    token = new_token()
    claim = await rig.claim()
    await rig.park(claim, Wait(node_id="hook", kind=WaitKind.WEBHOOK, waitpoint=waitpoint_of(token)))

    async with rig.store.read() as connection:
        found = await connection.run_sync(partial(read_open, waitpoint=waitpoint_of(token)))
        row = (await connection.execute(select(waitpoints))).mappings().one()

    assert found.run_id == claim.run_id
    assert token not in str(dict(row))


async def test_a_run_whose_time_has_come_is_woken_once(rig: Rig) -> None:
    until = datetime.now(UTC) + LATER
    claim = await rig.claim()
    await rig.park(claim, delay(until))

    assert await rig.wake(until - timedelta(microseconds=1)) == 0
    assert await rig.wake(until) == 1
    assert await rig.wake(until) == 0

    assert await rig.messages(claim.run_id) == [2]
    assert [said["until"] for said in await rig.told(claim.run_id, EventType.RUN_RESUMED)] == [until.isoformat()]


async def test_a_waiting_run_is_cancelled_at_once(rig: Rig) -> None:
    claim = await rig.claim()
    await rig.park(claim, webhook())

    async with rig.store.write() as connection:
        assert await request_cancel(connection, claim.run_id, "enough") is RunStatus.CANCELLED


async def test_a_run_that_is_to_stop_is_not_parked(rig: Rig) -> None:
    claim = await rig.claim()
    async with rig.store.write() as connection:
        await request_cancel(connection, claim.run_id, "enough")

    assert await rig.park(claim, webhook()) is RunStatus.CANCELLED


async def test_parking_gives_the_place_under_a_key_to_the_next_in_line(rig: Rig) -> None:
    first = await rig.claim(new_run(concurrency_key="k"))
    second = await rig.writer.accept(new_run(concurrency_key="k"))
    assert await rig.writer.take(second.run_id, owner="worker-1", executor="inline") is None

    await rig.park(first, webhook())

    assert [job.run_id for job in rig.called] == [second.run_id]
    assert await rig.writer.take(second.run_id, owner="worker-1", executor="inline") is not None


async def test_attempts_that_parked_say_so(rig: Rig) -> None:
    claim = await rig.claim()
    await rig.park(claim, webhook())

    async with rig.store.read() as connection:
        (attempt,) = await list_attempts(connection, claim.run_id)

    assert (attempt["outcome"], attempt["reason"]) == ("waiting", 'webhook at "hook"')


async def test_a_waitpoint_of_another_run_cannot_be_taken(rig: Rig) -> None:
    mine, thief, wait = await rig.claim(), await rig.claim(), webhook()
    await rig.park(mine, wait)
    await rig.park(thief, wait)

    assert (await rig.answer(str(wait.waitpoint)))[0] == mine.run_id


async def test_a_child_is_accepted_with_the_parking_and_its_end_is_told_to_its_caller(rig: Rig) -> None:
    await add_flow(rig.store)
    claim = await rig.claim(new_run(priority=2))
    await rig.park(claim, call(claim))
    (child,) = await rig.children(claim.run_id)
    row = await rig.row(child)

    await rig.finish(await rig.take(child))
    woken = await rig.wake()

    assert (row["payload"], row["version"], row["priority"], row["depth"]) == ({"n": 1}, 1, 2, 1)
    assert [job.run_id for job in rig.called] == [child]
    assert woken == 1
    (resumed,) = await rig.told(claim.run_id, EventType.RUN_RESUMED)
    assert resumed["answer"] == {
        "run_id": child, "status": "succeeded", "result": {"done": True}, "error": None
    }  # fmt: skip


async def test_an_attempt_that_comes_to_the_same_call_again_starts_no_second_child(rig: Rig) -> None:
    await add_flow(rig.store)
    claim = await rig.claim()
    await rig.park(claim, call(claim), delay(datetime.now(UTC)))
    await rig.wake()

    again = await rig.take(claim.run_id)
    await rig.park(again, call(claim))

    assert len(await rig.children(claim.run_id)) == 1


async def test_a_cancelled_caller_takes_its_children_and_theirs_along(rig: Rig) -> None:
    await add_flow(rig.store)
    claim = await rig.claim()
    await rig.park(claim, call(claim))
    (child,) = await rig.children(claim.run_id)
    middle = await rig.take(child)
    await rig.park(middle, call(middle))
    (grandchild,) = await rig.children(child)

    async with rig.store.write() as connection:
        await request_cancel(connection, claim.run_id, "enough")
    await rig.wake()
    await rig.wake()

    assert [await rig.status(run) for run in (child, grandchild)] == ["cancelled", "cancelled"]


@pytest.mark.parametrize(
    ("asked", "words"), [({"flow": "none"}, "has no flow"), ({"version": 9}, "has no version 9; the newest is 1")]
)
async def test_a_call_of_what_is_not_there_is_answered_at_once(rig: Rig, asked: Any, words: str) -> None:
    await add_flow(rig.store)
    claim = await rig.claim()

    assert await rig.park(claim, call(claim, **asked)) is RunStatus.QUEUED

    (resumed,) = await rig.told(claim.run_id, EventType.RUN_RESUMED)
    assert words in str(resumed["answer"])


async def test_runs_that_call_one_another_for_ever_are_stopped(rig: Rig) -> None:
    await add_flow(rig.store)
    claim = await rig.claim(new_run(depth=10))

    assert await rig.park(claim, call(claim)) is RunStatus.QUEUED

    (resumed,) = await rig.told(claim.run_id, EventType.RUN_RESUMED)
    assert "look for a flow that calls itself" in str(resumed["answer"])
    assert await rig.children(claim.run_id) == []


async def test_a_child_that_fails_is_an_answer_too(rig: Rig) -> None:
    await add_flow(rig.store)
    claim = await rig.claim()
    await rig.park(claim, call(claim))
    (child,) = await rig.children(claim.run_id)

    await rig.finish(await rig.take(child), Failed(error=RunError(kind=ErrorKind.USER, message="no")))
    await rig.wake()

    (resumed,) = await rig.told(claim.run_id, EventType.RUN_RESUMED)
    assert isinstance(resumed["answer"], dict)
    assert resumed["answer"]["status"] == "failed"


async def test_a_node_in_a_pod_is_a_run_of_its_callers_flow_that_executes_as_a_job(rig: Rig) -> None:
    await add_flow(rig.store)
    claim = await rig.claim(new_run(mode="inline", backend_config={"runtime_class": "kata"}))
    await rig.park(claim, pod(claim, attempt=1))
    (child,) = await rig.children(claim.run_id)
    row = await rig.row(child)
    taken = await rig.take(child)

    assert (row["flow"], row["version"], row["node"]) == ("greet", 1, "say")
    assert (row["mode"], row["backend_config"]) == ("kubernetes_job", {"runtime_class": "kata"})
    assert (taken.node, taken.payload) == ("say", {"attempt": 1})
    (waiting,) = await rig.told(claim.run_id, EventType.RUN_WAITING)
    assert waiting["waits"] == [{"node_id": "say", "kind": "child", "until": None, "url": None, "run_id": child}]


@pytest.mark.parametrize(("modes", "may"), [(("inline",), False), (("inline", "kubernetes_job"), True)])
async def test_the_operators_list_of_modes_holds_for_nodes_too(rig: Rig, modes: Any, may: bool) -> None:
    await add_flow(rig.store)
    async with rig.store.write() as connection:
        await put_limits(connection, "shop", AppLimits(modes=modes))
    claim = await rig.claim()

    status = await rig.park(claim, pod(claim))

    assert status is (RunStatus.WAITING if may else RunStatus.QUEUED)
    resumed = await rig.told(claim.run_id, EventType.RUN_RESUMED)
    assert ["may have no pods" in str(said["answer"]) for said in resumed] == ([] if may else [True])
