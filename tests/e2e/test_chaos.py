"""The short form of scripts/chaos: a few hundred runs while processes are killed, frozen and robbed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


#: A few hundred runs, and the kills in calm of the long form only once.
SHORT = ("--runs", "300", "--kills", "1", "--patience", "200")


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("carrier", "database", "seed"),
    [("redis", "sqlite", 3), ("redis", "postgres", 4), ("sqs", "sqlite", 7), ("kafka", "postgres", 8)],
)
def test_chaos_loses_nothing_and_does_nothing_twice(carrier: str, database: str, seed: int) -> None:
    command = ["scripts/chaos.py", "--carrier", carrier, "--db", database, "--seed", str(seed), *SHORT]

    done = subprocess.run(
        [sys.executable, "-P", *command], cwd=ROOT, capture_output=True, text=True, timeout=380, check=False
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])["figures"]
    assert figures["accepted"] == figures["finished"] >= 300
    assert [figures[name] for name in ("lost", "doubled", "overlapped", "stale_writes", "leftovers")] == [0] * 5
