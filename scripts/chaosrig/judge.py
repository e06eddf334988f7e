"""Compares what was accepted, what SQL says and what the witness saw."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from scripts.chaosrig.databases import Database
from scripts.chaosrig.flows import CHAINS
from scripts.chaosrig.witness import Witness

#: Figures that must be zero.
PROMISES = (
    "lost", "doubled", "overlapped", "stale_writes", "missing_effects", "gaps", "dead", "failed", "unpublished",
    "leftovers",
)  # fmt: skip

_OVER = {"succeeded", "failed", "dead", "cancelled", "timed_out", "memory_exceeded", "output_exceeded"}

Calls = list[tuple[int, int]]
History = list[tuple[int, str, dict[str, Any]]]


async def judge(database: Database, witness: Witness, accepted: set[str]) -> dict[str, Any]:
    """Count the promises that were kept and broken."""
    rows = await database.read("SELECT id, status, attempt, idempotency_key, flow FROM runs")
    events = await database.read("SELECT run_id, seq, type, data FROM run_events ORDER BY run_id, seq")
    outbox = await database.read("SELECT count(*) FROM outbox")
    histories: dict[str, History] = defaultdict(list)
    for run_id, seq, kind, data in events:
        histories[run_id].append((seq, kind, json.loads(data)))
    over = {row[0] for row in rows if row[1] in _OVER}
    status = Counter(row[1] for row in rows)
    per_key = Counter(row[3] for row in rows)
    calls = list(witness.calls.values())
    return {
        "accepted": len(accepted),
        "finished": len(accepted & over),
        "lost": len(accepted - over),
        "doubled": sum(count - 1 for count in per_key.values()) + sum(map(_ends_twice, histories.values())),
        "overlapped": sum(map(_goes_back, calls)),
        "stale_writes": sum(map(_stale, histories.values())),
        "missing_effects": sum(
            {step for _, step in witness.calls[run_id]} != set(range(CHAINS[flow].steps))
            for run_id, state, _, _, flow in rows
            if state == "succeeded"
        ),
        "repeated_effects": sum(len(one) - len({step for _, step in one}) for one in calls),
        "gaps": sum(map(_has_gaps, histories.values())),
        "failed": sum(status[name] for name in _OVER - {"succeeded", "dead"}),
        "dead": status["dead"],
        "unpublished": outbox[0][0],
        "most_attempts": max((row[2] for row in rows), default=0),
    }


def leftovers(home: Path, scratch: Path) -> dict[str, Any]:
    """Find processes that still carry this home in their environment, and files in their scratch folder."""
    mark = str(home).encode()
    processes = 0
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            processes += mark in environ.read_bytes()
        except OSError:
            continue
    files = sorted(path.name for path in scratch.iterdir())
    return {"leftovers": processes + len(files), "left_processes": processes, "left_files": files}


def _goes_back(calls: Calls) -> bool:
    """Tell whether an attempt acted after a later one had."""
    attempts = [attempt for attempt, _ in calls]
    return attempts != sorted(attempts)


def _ends_twice(history: History) -> bool:
    return sum(kind == "run_completed" for _, kind, _ in history) > 1


def _stale(history: History) -> bool:
    """Tell whether an earlier attempt began after a later one had."""
    current = 0
    for _, kind, data in history:
        if kind == "run_started":
            if data["attempt"] <= current:
                return True
            current = data["attempt"]
    return False


def _has_gaps(history: History) -> bool:
    return [seq for seq, _, _ in history] != list(range(1, len(history) + 1))
