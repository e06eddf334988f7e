"""A run that ends its worker each time: it is given up after its last attempt, and the others go on."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from scripts.chaosrig.flows import APP, SLOW, push
from scripts.chaosrig.load import Load, wait_for_the_end
from scripts.chaosrig.rig import Rig, open_rig
from scripts.chaosrig.witness import open_witness
from tests.e2e.flo_program import PATIENCE

ATTEMPTS = 3


async def row_of(rig: Rig, query: str) -> tuple[Any, ...] | None:
    return next(iter(await rig.database.read(query)), None)


async def kill_whoever_takes(rig: Rig, run_id: str, attempt: int) -> str:
    """End the worker that executes this attempt, as the run itself would; give the worker's id."""
    taken = f"SELECT owner FROM runs WHERE id = '{run_id}' AND status = 'running' AND attempt = {attempt}"
    async with asyncio.timeout(PATIENCE):
        while (owner := await row_of(rig, taken)) is None:  # noqa: ASYNC110 - SQL calls nobody back
            await asyncio.sleep(0.02)
    pid = await row_of(rig, f"SELECT pid FROM workers WHERE id = '{owner[0]}'")
    assert pid is not None
    await rig.kill_worker([worker.pid for worker in rig.workers].index(pid[0]))
    return str(owner[0])


@pytest.mark.timeout(240)
@pytest.mark.parametrize("carrier", ["redis", "sqs", "kafka"])
async def test_a_run_that_kills_its_worker_is_given_up_and_harms_no_other_workers_runs(carrier: str) -> None:
    async with open_witness() as witness, open_rig(carrier, "sqlite", workers=2, max_attempts=ATTEMPTS) as rig:
        await push(rig, witness.port)
        load = Load(rig, Random(6))
        answer = await rig.http.post(f"/api/v1/apps/{APP}/events/{SLOW.name}/invoke/async", json={"payload": {}})
        poison = answer.raise_for_status().json()["run_id"]
        feeding = asyncio.create_task(load.feed(60))

        killed = {await kill_whoever_takes(rig, poison, attempt) for attempt in range(1, ATTEMPTS + 1)}
        await feeding
        # On workers that nobody kills any more.
        await load.feed(20)
        await wait_for_the_end(rig, patience=PATIENCE)

        run = (await rig.http.get(f"/api/v1/runs/{poison}")).json()
        elsewhere = await rig.database.read(
            "SELECT status, attempt FROM runs WHERE id NOT IN "
            f"(SELECT run_id FROM attempts WHERE worker IN ({', '.join(map(repr, killed))}))"
        )
        lost_elsewhere = await rig.database.read(
            f"SELECT run_id FROM attempts WHERE outcome = 'lost' AND worker NOT IN ({', '.join(map(repr, killed))})"
        )

    assert (run["status"], run["attempt"]) == ("dead", ATTEMPTS)
    assert f"given up after {ATTEMPTS} attempts" in run["error"]["message"]
    assert set(elsewhere) == {("succeeded", 1)}
    assert lost_elsewhere == []


async def kill_all_together(rig: Rig, attempt: int, runs: int) -> None:
    """End the only worker once it executes this many runs, all at this attempt."""
    together = f"SELECT count(*) FROM runs WHERE status = 'running' AND attempt = {attempt}"
    async with asyncio.timeout(PATIENCE):
        while await row_of(rig, together) != (runs,):  # noqa: ASYNC110 - SQL calls nobody back
            await asyncio.sleep(0.02)
    await rig.kill_worker(0)


@pytest.mark.timeout(240)
async def test_neighbours_of_a_run_that_kills_its_worker_are_not_given_up_with_it() -> None:
    async with open_witness() as witness, open_rig("redis", "sqlite", workers=1, max_attempts=ATTEMPTS) as rig:
        await push(rig, witness.port)
        route = f"/api/v1/apps/{APP}/events/{SLOW.name}/invoke/async"
        answers = [await rig.http.post(route, json={"payload": {}}) for _ in range(4)]
        poison, *neighbours = [answer.raise_for_status().json()["run_id"] for answer in answers]
        await kill_all_together(rig, 1, 4)
        await kill_all_together(rig, 2, 4)

        await kill_whoever_takes(rig, poison, ATTEMPTS)
        await wait_for_the_end(rig, patience=PATIENCE)

        ends = dict(await rig.database.read("SELECT id, status FROM runs"))
        tries = await rig.database.read("SELECT max(attempt) FROM runs")

    assert ends == {poison: "dead", **dict.fromkeys(neighbours, "succeeded")}
    assert tries == [(ATTEMPTS,)]
