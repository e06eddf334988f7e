"""The worker's end of a box with an engine: what it believes, and what it does when it can't."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from box_in_hand import Inside, TestProgram, document, engine_box, exited, order

from dispatch.claims import LostClaim
from schemas.errors import Unavailable
from schemas.outcome import Succeeded
from schemas.run import EventType, Happening
from workers.engine.sink import MemorySink
from workers.executors.boxed.desk import Services
from workers.executors.boxed.engine_box import EngineBox
from workers.executors.boxed.verdict import BoxDied
from workers.preparation.preparer import NoPreparer
from workers.sandboxes.box.egress import PUBLIC_EGRESS
from workers.sandboxes.commands import NoBox
from workers.tenure import Lease, without_end

_DONE = {"is": "succeeded", "result": {"n": 2}}


async def begun(box: EngineBox, inside: Inside, sink: MemorySink) -> tuple[asyncio.Task[object], int]:
    run = asyncio.create_task(box.run(order(), sink, {}))
    return run, (await inside.hear("run"))["run"]


async def test_a_run_tells_what_happens_and_ends() -> None:
    sink = MemorySink()
    async with engine_box() as (box, inside):
        run, number = await begun(box, inside, sink)
        inside.event(number, "node_started", node_type="debug.log", attempt=1)
        inside.event(number, "log", level="info", message="m")
        inside.done(number, _DONE)

        assert await run == Succeeded(result={"n": 2})
    assert [said.type for said in sink.happenings] == [EventType.NODE_STARTED, EventType.LOG]


async def test_a_document_is_told_once() -> None:
    async with engine_box() as (box, inside):
        first = asyncio.create_task(box.run(order(), MemorySink(), {}))
        second = asyncio.create_task(box.run(order(), MemorySink(), {}))

        said = [(await inside.reader.readline())[:13] for _ in range(3)]
        first.cancel()
        second.cancel()
        inside.program.end(exited(0))
        await asyncio.wait([first, second])
    assert said == [b'{"do":"know",', b'{"do":"run","', b'{"do":"run","']


async def test_another_document_of_the_same_name_is_told_too() -> None:
    other = document(nodes=[{"id": "b", "node_type": "debug.log", "config": {"message": "m"}}])
    async with engine_box() as (box, inside):
        first, _ = await begun(box, inside, MemorySink())
        second = asyncio.create_task(box.run(order(document=other), MemorySink(), {}))

        told = await inside.hear("know")
        number = (await inside.hear("run"))["run"]
        inside.event(number, "node_started", node_id="b", node_type="debug.log", attempt=1)
        inside.done(number, _DONE)
        assert await second == Succeeded(result={"n": 2})
        first.cancel()
        inside.program.end(exited(0))
        await asyncio.wait([first])
    assert [node["id"] for node in told["document"]["nodes"]] == ["b"]


@pytest.mark.parametrize("type_", ["run_completed", "run_started", "run_queued", "run_waiting"])
async def test_a_box_that_tells_of_its_runs_beginning_or_end_is_killed(type_: str) -> None:
    async with engine_box() as (box, inside):
        run, number = await begun(box, inside, MemorySink())
        inside.event(number, type_, node_id=None, status="succeeded")

        with pytest.raises(BoxDied):
            await run
        assert box.is_dead


@pytest.mark.parametrize(
    "line",
    [
        b"not json\n", b"[]\n", b"7\n", b'{"say": 7, "run": 1}\n', b'{"say": "events", "run": 1}\n', b"{}\n",
        b'{"say": "done", "run": 1, "outcome": {"is": "great"}}\n', b'{"say": "ask", "ask": 1, "run": 1}\n',
        b'{"say": "ask", "ask": 1, "run": 1, "what": "rm", "order": null}\n', b"\xff\xfe\n",
    ],
)  # fmt: skip
async def test_a_box_that_talks_nonsense_is_killed(line: bytes) -> None:
    async with engine_box() as (box, inside):
        run, _ = await begun(box, inside, MemorySink())
        inside.raw(line)

        with pytest.raises(BoxDied):
            await run
        assert box.is_dead


async def test_a_box_tells_of_nodes_of_its_own_runs_only() -> None:
    sink = MemorySink()
    async with engine_box() as (box, inside):
        run, number = await begun(box, inside, sink)
        inside.event(number, "node_completed", node_id="somebody-elses", outputs={})

        with pytest.raises(BoxDied):
            await run
    assert sink.happenings == []


async def test_what_a_box_says_of_a_run_that_it_does_not_have_is_not_heard() -> None:
    async with engine_box() as (box, inside):
        run, number = await begun(box, inside, MemorySink())
        inside.done(number + 1, {"is": "succeeded", "result": "forged"})
        inside.done(number, _DONE)

        assert await run == Succeeded(result={"n": 2})


async def test_the_clock_of_a_box_is_not_believed() -> None:
    sink = MemorySink()
    async with engine_box() as (box, inside):
        run, number = await begun(box, inside, sink)
        inside.event(number, "log", node_id=None)
        inside.done(number, _DONE)
        await run
    assert sink.happenings[0].time.year > 2000


async def test_a_box_that_dies_with_its_order_unread_never_began_with_the_run() -> None:
    program = TestProgram()
    program.inside.send(b'{"say": "ready"}\n')
    services = Services(preparer=NoPreparer(), commands=NoBox())
    box = await EngineBox.start(program, services, PUBLIC_EGRESS, without_end())
    run = asyncio.create_task(box.run(order(), MemorySink(), {}))
    await asyncio.sleep(0.01)
    program.inside.close()
    program.end(exited(-9))

    with pytest.raises(BoxDied) as died:
        await run
    assert died.value.alone
    assert not died.value.began


async def test_a_box_that_dies_with_its_order_read_began_with_the_run() -> None:
    async with engine_box() as (box, inside):
        run, _ = await begun(box, inside, MemorySink())
        inside.program.end(exited(-9))

        with pytest.raises(BoxDied) as died:
            await run
    assert died.value.began


async def test_what_a_box_says_before_it_dies_is_heard() -> None:
    async with engine_box() as (box, inside):
        run, number = await begun(box, inside, MemorySink())
        inside.done(number, _DONE)
        inside.program.end(exited(-9))

        assert await run == Succeeded(result={"n": 2})


async def test_cancelling_a_run_stops_it_and_leaves_the_box() -> None:
    async with engine_box() as (box, inside):
        run, number = await begun(box, inside, MemorySink())
        run.cancel()
        assert (await inside.hear("cancel"))["run"] == number
        inside.done(number, {"is": "cancelled", "reason": "stopped"})

        with pytest.raises(asyncio.CancelledError):
            await run
        assert not box.is_dead


async def test_a_run_that_will_not_stop_costs_its_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.executors.boxed.engine_box.STOP_PATIENCE", 0.01)
    async with engine_box() as (box, inside):
        run, _ = await begun(box, inside, MemorySink())
        run.cancel()

        with pytest.raises(asyncio.CancelledError):
            await run
        assert box.is_dead


async def test_a_flush_returns_when_what_was_said_is_durable() -> None:
    class Slow(MemorySink):
        def __init__(self) -> None:
            super().__init__()
            self.asked, self.durable = asyncio.Event(), asyncio.Event()

        async def flush(self) -> None:
            self.asked.set()
            await self.durable.wait()

    sink = Slow()
    async with engine_box() as (box, inside):
        run, number = await begun(box, inside, sink)
        inside.say(say="ask", ask=5, run=number, what="flush", order=None)
        await sink.asked.wait()
        sink.durable.set()

        assert await inside.hear("answer") == {"do": "answer", "ask": 5, "value": None}
        run.cancel()
        inside.done(number, _DONE)
        await asyncio.wait([run])


async def test_a_run_that_another_attempt_has_ends_here_and_the_box_lives_on() -> None:
    class Fenced(MemorySink):
        def emit(self, happening: Happening) -> None:
            raise LostClaim("run_1")

    async with engine_box() as (box, inside):
        run, number = await begun(box, inside, Fenced())
        inside.event(number, "log", level="info", message="m")

        with pytest.raises(LostClaim):
            await run
        assert not box.is_dead


async def test_a_box_that_ends_before_it_is_ready_says_why() -> None:
    program = TestProgram()
    program.end(exited(1, b"Traceback ...\nImportError: no module named flo\n"))

    with pytest.raises(Unavailable, match="ImportError: no module named flo"):
        services = Services(preparer=NoPreparer(), commands=NoBox())
        await EngineBox.start(program, services, PUBLIC_EGRESS, without_end())


async def test_a_run_that_is_stopped_once_the_lease_is_lost_takes_its_box_along() -> None:
    lease = {"holds": True}
    async with engine_box(holds=lambda: lease["holds"]) as (box, inside):
        run, _ = await begun(box, inside, MemorySink())
        lease["holds"] = False

        run.cancel()

        with pytest.raises(asyncio.CancelledError):
            await run
        assert box.is_buried


async def test_no_box_is_given_to_a_worker_that_has_no_lease() -> None:
    with pytest.raises(Unavailable, match="lease ran out"):
        async with engine_box(holds=lambda: False):
            pass


async def test_a_box_whose_lease_was_lost_takes_no_run_in_the_next_tenure() -> None:
    lease = Lease(timedelta(hours=1))
    async with engine_box(holds=lease.begin()) as (box, _):
        lease.tenure.until = 0.0
        lease.renew(time.monotonic())

        assert box.is_dead
        with pytest.raises(Unavailable):
            await box.run(order(), MemorySink(), {})
