from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from schemas.job import Job, JobKind
from schemas.run import RunStatus
from workers.carriers import intake as module
from workers.carriers.intake import Intake


@dataclass
class SpyDispatcher:
    concurrency: int = 2
    offered: list = field(default_factory=list)

    def offer(self, job, receipt) -> None:
        self.offered.append((job.run_id, receipt))

    @property
    def ids(self) -> list[str]:
        return [run_id for run_id, _ in self.offered]

    def receipt(self, run_id: str):
        return dict(self.offered)[run_id]


@dataclass
class SpyReceipt:
    heard: list = field(default_factory=list)

    def decided(self, claimed: bool) -> None:
        self.heard.append(claimed)

    def finished(self, status: RunStatus | None) -> None:
        self.heard.append(status)


@dataclass(eq=False)
class Message:
    name: str
    priority: int = 5
    is_fresh: bool = True
    settled: int = 0

    @property
    def job(self) -> Job:
        return Job(kind=JobKind.FLOW, run_id=self.name, app="shop", priority=self.priority)

    def fresh(self) -> bool:
        return self.is_fresh

    def settle(self) -> None:
        self.settled += 1


@pytest.fixture
def dispatcher() -> SpyDispatcher:
    return SpyDispatcher()


@pytest.fixture
def receipt() -> SpyReceipt:
    return SpyReceipt()


@pytest.fixture
async def intake(dispatcher: SpyDispatcher, receipt: SpyReceipt) -> Intake:
    return Intake(dispatcher, lambda job: receipt)  # type: ignore[arg-type]


async def test_no_more_is_offered_than_there_are_slots(intake: Intake, dispatcher: SpyDispatcher) -> None:
    intake.put([Message(name) for name in "abc"])

    assert dispatcher.ids == ["a", "b"]
    assert (intake.room(), intake.room(ahead=2)) == (0, 1)


async def test_a_refused_claim_makes_room_and_settles_its_message(intake: Intake, dispatcher: SpyDispatcher) -> None:
    messages = [Message(name) for name in "abc"]
    intake.put(messages)

    dispatcher.receipt("a").decided(False)

    assert dispatcher.ids == ["a", "b", "c"]
    assert [message.settled for message in messages] == [1, 0, 0]


async def test_a_claimed_run_keeps_its_slot_until_it_ends(
    intake: Intake, dispatcher: SpyDispatcher, receipt: SpyReceipt
) -> None:
    intake.put([Message(name) for name in "abc"])

    dispatcher.receipt("a").decided(True)
    while_running = list(dispatcher.ids)
    dispatcher.receipt("a").finished(RunStatus.SUCCEEDED)
    await asyncio.sleep(0)

    assert while_running == ["a", "b"]
    assert dispatcher.ids == ["a", "b", "c"]
    assert receipt.heard == [True, RunStatus.SUCCEEDED]


async def test_the_most_urgent_goes_first_then_the_oldest(intake: Intake, dispatcher: SpyDispatcher) -> None:
    dispatcher.concurrency = 0
    intake.put([Message("a", 9), Message("b", 5), Message("c", 0), Message("d", 5)])
    dispatcher.concurrency = 4

    intake.purge()

    assert dispatcher.ids == ["c", "b", "d", "a"]


async def test_messages_that_went_to_another_worker_are_forgotten(intake: Intake, dispatcher: SpyDispatcher) -> None:
    messages = [Message(name) for name in "abcd"]
    intake.put(messages)
    messages[2].is_fresh = False

    intake.purge()
    dispatcher.receipt("a").decided(False)

    assert dispatcher.ids == ["a", "b", "d"]


async def test_a_grown_pool_takes_more_at_the_next_message(intake: Intake, dispatcher: SpyDispatcher) -> None:
    intake.put([Message(name) for name in "abc"])
    dispatcher.concurrency = 4

    intake.put([Message("d")])

    assert dispatcher.ids == ["a", "b", "c", "d"]


async def test_whoever_waits_for_room_is_woken_by_it(intake: Intake, dispatcher: SpyDispatcher) -> None:
    intake.put([Message("a"), Message("b")])
    waiting = asyncio.create_task(intake.wait_for_room())
    await asyncio.sleep(0)

    dispatcher.receipt("a").decided(False)

    assert await waiting == 1


async def test_a_stop_wakes_whoever_waits_for_room_and_offers_nothing_more(
    intake: Intake, dispatcher: SpyDispatcher
) -> None:
    intake.put([Message("a"), Message("b"), Message("c")])
    waiting = asyncio.create_task(intake.wait_for_room())
    await asyncio.sleep(0)

    intake.stop()
    dispatcher.receipt("a").decided(False)

    assert await waiting == 0
    assert dispatcher.ids == ["a", "b"]


async def test_closing_waits_for_claims_and_answers_what_nobody_claimed(
    intake: Intake, dispatcher: SpyDispatcher
) -> None:
    messages = [Message(name) for name in "abcd"]
    intake.put(messages)
    messages[3].is_fresh = False
    closing = asyncio.create_task(intake.close())
    await asyncio.sleep(0)

    dispatcher.receipt("a").decided(True)
    dispatcher.receipt("b").decided(False)

    assert await closing == [messages[2]]


async def test_a_claim_that_is_never_decided_gives_its_slot_back(
    intake: Intake, dispatcher: SpyDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_OVERDUE", -module._OVERDUE)
    messages = [Message(name) for name in "abc"]
    intake.put(messages)

    room = await intake.wait_for_room(ahead=1)

    assert room > 0
    assert [message.settled for message in messages] == [1, 1, 0]
    assert dispatcher.ids == ["a", "b", "c"]


async def test_a_late_decision_after_that_is_heard_but_settles_nothing_twice(
    intake: Intake, dispatcher: SpyDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_OVERDUE", -module._OVERDUE)
    message = Message("a")
    intake.put([message])
    await intake.wait_for_room(ahead=1)

    dispatcher.receipt("a").decided(True)
    dispatcher.receipt("a").finished(RunStatus.SUCCEEDED)

    assert message.settled == 1
    assert intake.room() == 2
