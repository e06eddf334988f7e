"""Real Node hosts."""

from __future__ import annotations

import os

import pytest

from workers.sandboxes.v8.setup import v8_setup_problem


@pytest.fixture(scope="session", autouse=True)
def v8_is_set_up() -> None:
    problem = v8_setup_problem()
    if problem is not None and "CI" in os.environ:
        pytest.fail(problem)
    if problem is not None:
        pytest.skip(problem)
