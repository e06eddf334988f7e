"""Runs with one concurrency key, on two real workers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from tests.integration.workers.worker_process import WorkerProcess, open_lane

SHORT = {"name": "short", "nodes": [{"id": "wait", "node_type": "time.delay", "config": {"delay_ms": 20}}]}


async def test_runs_with_one_key_follow_each_other_on_whatever_worker(
    home: Path, database_url: str, redis_url: str
) -> None:
    async with open_lane(database_url, redis_url, SHORT) as lane:
        with (
            WorkerProcess(home / "one", database_url, redis_url),
            WorkerProcess(home / "two", database_url, redis_url),
        ):
            sent = [await lane.send(concurrency_key="k") for _ in range(20)]

            ended = [await lane.ended(run_id) for run_id in sent]

    assert {run["status"] for run in ended} == {"succeeded"}
    assert {run["attempt"] for run in ended} == {1}
    assert all(later["started_at"] >= sooner["finished_at"] for sooner, later in pairwise(ended))
