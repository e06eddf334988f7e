"""Measures each carrier beside stock Celery, dramatiq, huey and taskiq on the same Redis, in the same run.

Two worker processes each. Flo's side is everything that a user gets: HTTP accept with a commit in SQL, queue, claim,
engine, result and events in SQL. The peers' side is a no-op task, with late acknowledgement where there is one, and no
record. Rates are of the last four fifths of a backlog, so that no start of a process counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.chaos import machine
from scripts.peers import peer as peers
from scripts.queuebench.flo_side import measure_flo
from scripts.queuebench.peer_side import measure_peer


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, default=6000, help="jobs in a backlog (default: %(default)s)")
    options.add_argument("--idle", type=int, default=200, help="jobs, one at a time (default: %(default)s)")
    options.add_argument("--carriers", default="redis,sqs,kafka", help="comma-separated (default: %(default)s)")
    options.add_argument("--dbs", default="sqlite,postgres", help="comma-separated (default: %(default)s)")
    options.add_argument("--rounds", type=int, default=3, help="on Redis, in turns; medians count (%(default)s)")
    options.add_argument("--workers", type=int, default=2, help="Flo's worker processes (default: %(default)s)")
    options.add_argument("--without-peers", action="store_true", help="measure Flo alone")
    options.add_argument("--backlog", type=int, help="drain 1,000 jobs, then so many, on Flo alone; compare the two")
    given = options.parse_args()
    if given.backlog:
        return report(asyncio.run(compare_backlogs(given.carriers, given.dbs, given)))
    if not given.without_peers:
        peers.install()
    rounds = [measure_round(given, first=number == 0) for number in range(given.rounds)]
    rows = {name: medians([one[name] for one in rounds if name in one]) for name in rounds[0]}
    return report(rows, rounds)


def measure_round(given: argparse.Namespace, *, first: bool) -> dict[str, dict[str, Any]]:
    """Measure one after the other; carriers without peers on them in the first round only."""
    rows: dict[str, dict[str, Any]] = {}
    for carrier in given.carriers.split(","):
        if carrier != "redis" and not first:
            continue
        # SQS here is moto, in Python: its own speed is what is seen. One database is enough for it and for Kafka.
        for db in given.dbs.split(",") if carrier == "redis" else given.dbs.split(",")[:1]:
            jobs = given.jobs if carrier != "sqs" else given.jobs // 6
            rows[f"flo {carrier} {db}"] = asyncio.run(
                measure_flo(carrier, db, jobs=jobs, idle=given.idle, workers=given.workers)
            )
    if not given.without_peers:
        rows |= {peer.name: measure_peer(peer, jobs=given.jobs, idle=given.idle) for peer in peers.PEERS}
    return rows


def medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Give the middle of each figure: a shared machine differs from minute to minute."""
    return {figure: round(statistics.median(row[figure] for row in rows), 2) for figure in rows[0]}


async def compare_backlogs(carriers: str, dbs: str, given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Drain a short and a long backlog on the first carrier and database named."""
    carrier, db = carriers.partition(",")[0], dbs.partition(",")[0]
    return {
        f"flo {carrier} {db}, {jobs:,} jobs": await measure_flo(
            carrier, db, jobs=jobs, idle=given.idle, workers=given.workers
        )
        for jobs in (1000, given.backlog)
    }


def report(rows: dict[str, dict[str, Any]], rounds: Sequence[dict[str, dict[str, Any]]] = ()) -> int:
    """Print a table for people, and one JSON object."""
    columns = ("publish_per_s", "consume_per_s", "cpu_us_per_run", "memory_mb_late", "idle_p50_ms", "idle_p99_ms")
    table = Table("queue", *columns, title=f"queue, {machine()}")
    for name, row in rows.items():
        table.add_row(name, *(str(row.get(column, "")) for column in columns))
    Console().print(table)
    figures: dict[str, Any] = dict(rows)
    flo = max((row["consume_per_s"] for name, row in rows.items() if name.startswith("flo redis")), default=None)
    if flo is not None and "celery" in rows:
        others = [rows[peer.name]["consume_per_s"] for peer in peers.PEERS if peer.name != "celery"]
        figures["flo_to_celery"] = round(flo / rows["celery"]["consume_per_s"], 2)
        figures["flo_to_best_other"] = round(flo / max(others), 2)
    if rounds:
        figures["consume_per_s_of_each_round"] = {
            name: [one[name]["consume_per_s"] for one in rounds] for name in rounds[-1]
        }
    print(json.dumps({"name": "queue", "machine": machine(), "figures": figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
