"""What a run asks to be done next. `advance.py` returns these, `drive.py` does them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from schemas.outcome import RunError


@dataclass(frozen=True, slots=True)
class Start:
    """Run this node now."""

    node: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Pause:
    """The attempt failed; call `due` after the delay."""

    node: int
    attempt: int
    error: RunError
    delay: timedelta


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The node has failed for good."""

    node: int
    attempt: int
    error: RunError


@dataclass(frozen=True, slots=True)
class StartOver:
    """Stop what runs, wait until it has stopped, then call `begin` for this round of the whole flow."""

    round: int
    error: RunError


@dataclass(frozen=True, slots=True)
class End:
    """The flow is over: stop what still runs. Without an error it succeeded."""

    error: RunError | None


@dataclass(frozen=True, slots=True)
class Suspend:
    """Nothing runs, and these nodes wait for something outside: end the attempt, but not the run."""

    nodes: tuple[int, ...]


Action: TypeAlias = Start | Pause | GiveUp | StartOver | Suspend | End
