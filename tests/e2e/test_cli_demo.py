"""`scripts/demo`, from another folder, in a home of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.flo_program import environment

_DEMO = Path(__file__).parents[2] / "scripts" / "demo"


@pytest.mark.timeout(180)
def test_the_demo_runs_a_job_of_each_lane_and_leaves_no_process(home: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [_DEMO, "--home", home.name],
        cwd=tmp_path,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count(" succeeded ") >= 4
    assert "`flo runs` lists 4 of these 4" in ended.stdout
    assert "stopped: 0 of" in ended.stdout
    assert (home / "flo.db").exists()
