"""Real executors, and the worker's side of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent.parent / "contract"))

from executor_places import Program, running_executor


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """An executor of the test's own, which it may kill. Isolates are enough for what is tested here."""
    with running_executor(tmp_path / "executor", "--concurrency", "2", FLO_EXECUTION_MODE="SANDBOX_CODE_ONLY") as one:
        yield one
