"""What a worker and a runner elsewhere say to each other comes back as it was meant."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.outcome import Cancelled, ErrorKind, Failed, Outcome, Retry, RunError, Succeeded
from schemas.run import EventType, Happening
from workers.preparation.recipe import Flaw, Lasts, Preparation, Prepared, Recipe
from workers.runner import command_wire, wire
from workers.sandboxes.box.base import (
    BoxLimits,
    CommandOrder,
    CommandOutcome,
    Exited,
    PythonOrder,
    Returned,
    Stopped,
    Usage,
)
from workers.sandboxes.box.egress import NO_EGRESS, PUBLIC_EGRESS

_LIMITS = BoxLimits(timeout=timedelta(seconds=1.5), memory_mb=7, pids=8, cpu_seconds=2.5, cpus=0.5, tmp_mb=9)
_USAGE = Usage(
    wall=timedelta(milliseconds=3), cpu=timedelta(0), peak_memory_bytes=4, cgroups=frozenset({"memory", "pids"})
)
_ERROR = RunError(kind=ErrorKind.MEMORY_EXCEEDED, message="too much", details={"limit": 7})
_STOPPED = Stopped(error=_ERROR, stdout=b"\xff", stderr=b"", usage=_USAGE)


def crossed(said: Any) -> Any:
    return json.loads(json.dumps(said))


@pytest.mark.parametrize(
    "outcome",
    [
        Succeeded(result={"a": [1, None]}),
        Failed(error=_ERROR),
        Cancelled(reason="asked"),
        Retry(after=timedelta(seconds=2), reason="lost"),
    ],
)
def test_an_outcome_crosses(outcome: Outcome) -> None:
    assert wire.outcome_from(crossed(wire.outcome_to(outcome))) == outcome


def test_a_happening_crosses() -> None:
    said = Happening(EventType.LOG, {"level": "info", "message": "ü"}, "node", datetime(2026, 1, 2, 3, 4, 5, 6, UTC))

    assert wire.happening_from(crossed(wire.happening_to(said))) == said


@pytest.mark.parametrize("broken", [{"data": []}, {"node_id": 7}, {"type": "no_such_type"}, {"time": "noon"}])
def test_a_happening_that_is_none_is_refused(broken: dict[str, Any]) -> None:
    said = wire.happening_to(Happening(EventType.LOG)) | broken

    with pytest.raises((TypeError, ValueError)):
        wire.happening_from(said)


def test_a_recipe_crosses() -> None:
    recipe = Recipe("code", "typescript", (("zod", "3.0.0"),))

    assert wire.recipe_from(crossed(wire.recipe_to(recipe))) == recipe


@pytest.mark.parametrize(
    "preparation",
    [
        Prepared(code="x", source_map="{}"),
        Flaw(kind=ErrorKind.SYNTAX, message="odd", line=1, column=2, lasts=Lasts.ALWAYS),
    ],
)
def test_what_was_prepared_crosses(preparation: Preparation) -> None:
    assert wire.preparation_from(crossed(wire.preparation_to(preparation))) == preparation


def test_a_command_crosses_but_for_whom_and_how_far() -> None:
    order = CommandOrder(
        argv=("a", "b"), app="mine", limits=_LIMITS, stdin=b"\0", env={"A": "1"}, files={"f": b"\xfe"},
        collect=("f",), cwd="below", egress=NO_EGRESS,
    )  # fmt: skip

    said = crossed(command_wire.command_to(order))

    assert command_wire.command_from(said, app="mine", egress=NO_EGRESS) == order
    assert command_wire.command_from(said, app="yours", egress=PUBLIC_EGRESS).app == "yours"
    assert "mine" not in json.dumps(said)


def test_python_crosses() -> None:
    order = PythonOrder(
        source="def main(): ...", inputs={"a": 1}, app="mine", limits=_LIMITS, filename="f.py", env={"A": "1"},
        files={"f": b"x"}, egress=PUBLIC_EGRESS,
    )  # fmt: skip

    said = crossed(command_wire.python_to(order))

    assert command_wire.python_from(said, app="mine", egress=PUBLIC_EGRESS) == order


@pytest.mark.parametrize(
    "outcome",
    [
        Exited(code=-9, stdout=b"o\xff", stderr=b"e", files={"f": b"\0"}, missing={"g": "gone"}, usage=_USAGE),
        _STOPPED,
    ],
)
def test_a_commands_end_crosses(outcome: CommandOutcome) -> None:
    assert command_wire.command_outcome_from(crossed(command_wire.command_outcome_to(outcome))) == outcome


@pytest.mark.parametrize("outcome", [Returned(value=[1], usage=_USAGE), _STOPPED])
def test_the_end_of_python_crosses(outcome: Returned | Stopped) -> None:
    assert command_wire.python_outcome_from(crossed(command_wire.python_outcome_to(outcome))) == outcome
