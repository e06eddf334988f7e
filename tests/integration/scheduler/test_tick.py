"""The tick: due schedules become runs, once each, whatever crashes or runs beside it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from dispatch.bell import LocalBell
from dispatch.queues.memory import MemoryQueue
from dispatch.store.triggers import read_event, set_next
from scheduler import tick as tick_module
from scheduler.duty import Duty
from scheduler.loops import run_duties
from scheduler.spine import open_spine
from scheduler.tick import tick

NOW = datetime(2026, 11, 21, 12, 0, 30, tzinfo=UTC)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


async def schedule(api, name="often", *, due=NOON, **config):
    answer = await api.event(name, "schedule", **({"cron": "* * * * *"} | config))
    assert answer.status_code in (200, 201), answer.text
    async with api.spine.store.write() as connection:
        await set_next(connection, "shop", name, due)


async def row(api, name="often"):
    async with api.spine.store.read() as connection:
        return await read_event(connection, "shop", name)


async def runs(api):
    return (await api.send("GET", "/api/v1/runs")).json()["items"]


async def test_a_due_schedule_becomes_a_run_and_moves_on(shop):
    await schedule(shop, payload={"depth": 2})

    fired = await tick(shop.spine, NOW)

    (run,) = await runs(shop)
    after = await row(shop)
    assert fired == 1
    assert (run["lane"], run["payload"]) == ("recurring", {"depth": 2, "scheduled_for": NOON.isoformat()})
    assert (after["next_at"], after["last_at"]) == (NOON + timedelta(minutes=1), NOON)
    assert (await shop.queue.take("recurring")).run_id == run["run_id"]


async def test_a_second_tick_at_the_same_time_fires_nothing(shop):
    await schedule(shop)

    await tick(shop.spine, NOW)

    assert await tick(shop.spine, NOW) == 0
    assert len(await runs(shop)) == 1


async def test_ticks_of_several_replicas_at_once_fire_once(shop):
    await schedule(shop)

    fired = await asyncio.gather(*(tick(shop.spine, NOW) for _ in range(5)))

    assert sum(fired) == 1
    assert len(await runs(shop)) == 1


async def test_a_crash_between_run_and_schedule_leaves_neither(shop, monkeypatch):
    await schedule(shop)

    async def crash(connection, new):
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(tick_module, "insert_runs", crash)
        await tick(shop.spine, NOW)

    assert (await row(shop))["next_at"] == NOON
    assert await tick(shop.spine, NOW) == 1


async def test_a_time_that_has_fired_never_fires_again_even_if_the_schedule_is_set_back(shop):
    await schedule(shop)
    await tick(shop.spine, NOW)
    async with shop.spine.store.write() as connection:
        await set_next(connection, "shop", "often", NOON)

    await tick(shop.spine, NOW)

    assert len(await runs(shop)) == 1


async def test_a_schedule_that_is_not_due_waits(shop):
    await schedule(shop, due=NOW + timedelta(seconds=1))

    assert await tick(shop.spine, NOW) == 0


async def test_missed_times_are_caught_up_as_the_schedule_says(shop):
    hour_ago = NOON - timedelta(hours=1)
    await schedule(shop, "none", cron="0 * * * *", due=hour_ago, catch_up="none")
    await schedule(shop, "latest", cron="*/20 * * * *", due=hour_ago, catch_up="latest")
    await schedule(shop, "all", cron="*/20 * * * *", due=hour_ago, catch_up="all")

    await tick(shop.spine, NOON + timedelta(minutes=10))

    events = sorted(run["event"] for run in await runs(shop))
    assert events == ["all", "all", "all", "all", "latest"]


async def test_overlap_skip_starts_nothing_while_the_run_before_is_live(shop):
    await schedule(shop, overlap="skip")
    await tick(shop.spine, NOW)

    skipped = await tick(shop.spine, NOW + timedelta(minutes=1))
    await shop.finish((await runs(shop))[0]["run_id"])
    fired = await tick(shop.spine, NOW + timedelta(minutes=2))

    assert (skipped, fired) == (0, 1)


async def test_overlap_queue_starts_the_next_when_the_run_before_is_over(shop):
    await schedule(shop, overlap="queue")
    await tick(shop.spine, NOW)
    later = NOW + timedelta(minutes=5)

    held = await tick(shop.spine, later)
    await shop.finish((await runs(shop))[0]["run_id"])
    fired = await tick(shop.spine, later)

    assert (held, fired) == (0, 1)
    assert (await runs(shop))[0]["payload"]["scheduled_for"] == (NOON + timedelta(minutes=5)).isoformat()


async def test_overlap_cancel_previous_stops_the_run_before(shop):
    await schedule(shop, overlap="cancel_previous")
    await tick(shop.spine, NOW)

    await tick(shop.spine, NOW + timedelta(minutes=1))

    assert [run["status"] for run in await runs(shop)] == ["queued", "cancelled"]


async def test_a_schedule_of_a_retired_flow_moves_on_without_a_run(shop):
    await schedule(shop)
    await shop.send("DELETE", "/api/v1/apps/shop/flows/greet")

    assert await tick(shop.spine, NOW) == 0
    assert (await row(shop))["next_at"] > NOW


async def test_a_paused_schedule_does_not_fire(shop):
    await schedule(shop)
    await shop.send("POST", "/api/v1/apps/shop/events/often/pause")

    assert await tick(shop.spine, NOW) == 0


async def test_hundreds_of_due_schedules_all_fire(shop):
    for number in range(230):
        await schedule(shop, f"s{number:03}")

    assert await tick(shop.spine, NOW) == 230


async def test_the_tick_goes_on_without_a_broker_and_the_relay_sends_later(shop):
    await schedule(shop)
    shop.queue.available = False

    fired = await tick(shop.spine, NOW)

    assert fired == 1
    assert (await runs(shop))[0]["status"] == "queued"


async def test_the_loops_fire_a_schedule_by_themselves_and_stop_when_asked(shop):
    await schedule(shop, due=datetime.now(UTC), cron="* * * * * *")
    duties = asyncio.create_task(run_duties(shop.spine))

    job = await asyncio.wait_for(shop.queue.take("recurring"), 30)
    shop.spine.stopping.set()
    await asyncio.wait_for(duties, 30)

    assert job.run_id in [run["run_id"] for run in await runs(shop)]


async def test_the_relay_sends_what_was_left_behind(shop):
    shop.queue.available = False
    run = await shop.start()
    await shop.spine.publisher.settle()
    shop.queue.available = True
    duties = asyncio.create_task(run_duties(shop.spine))

    job = await asyncio.wait_for(shop.queue.take("flow"), 30)
    shop.spine.stopping.set()
    await asyncio.wait_for(duties, 30)

    assert job.run_id == run


async def test_only_one_replica_has_the_duty_and_another_takes_over_when_it_is_released(shop):
    async with open_spine(shop.settings, queue=MemoryQueue(), bell=LocalBell()) as other:
        first, second = Duty(shop.spine.store, "scheduler"), Duty(other.store, "scheduler")

        held = (await first.mine(), await second.mine())
        await first.release()
        taken = await Duty(other.store, "scheduler").mine()

    assert held == (True, False)
    assert taken
