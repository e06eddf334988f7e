"""A run whose process is killed at any step at all goes on in another process, as if nothing had happened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("killed_program.py")
ROOT = Path(__file__).parents[3]
NODES = 30


def test_no_finished_node_repeats_and_every_effect_happens_wherever_the_process_is_killed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", str(PROGRAM), str(tmp_path)],
        capture_output=True, text=True, check=True, timeout=100, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    deaths = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(deaths) > NODES * 5  # several steps in each node: before, in and after its effect, its record, its flush
    assert [death["killed"] for death in deaths] == [True] * (len(deaths) - 1) + [False]
    assert {death["ended"] for death in deaths} == {0}
    assert {frozenset(death["happened"]) for death in deaths} == {frozenset(f"n{number}" for number in range(NODES))}
    assert [node for death in deaths for node in death["on_disk"] if death["happened"][node] != 1] == []
    assert max(sum(death["happened"].values()) for death in deaths) == NODES + 1  # only the one that was under way
