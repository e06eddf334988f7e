"""The short form of scripts/chaos: a few hundred runs while processes are killed, frozen and robbed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("database", "seed"), [("sqlite", 3), ("postgres", 4)])
def test_chaos_loses_nothing_and_does_nothing_twice(database: str, seed: int) -> None:
    command = ["scripts/chaos.py", "--db", database, "--runs", "400", "--seed", str(seed), "--patience", "200"]

    done = subprocess.run(
        [sys.executable, "-P", *command], cwd=ROOT, capture_output=True, text=True, timeout=380, check=False
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])["figures"]
    assert figures["accepted"] == figures["finished"] == 400
    assert [figures[name] for name in ("lost", "doubled", "overlapped", "stale_writes", "leftovers")] == [0] * 5
