"""What it means for a run that its box ended under it; pure."""

from __future__ import annotations

import signal
from datetime import timedelta
from typing import assert_never

from schemas.json import JSONObject
from schemas.outcome import ErrorKind, Failed, Outcome, Retry, RunError
from workers.sandboxes.box.base import CommandOutcome, Exited, Stopped

_MEMORY = "FLO_BOX_MEMORY_MB"
#: What a want of memory looks like from inside a box.
_SYMPTOMS = frozenset({ErrorKind.USER, ErrorKind.KILLED, ErrorKind.LOST, ErrorKind.INTERNAL})


class BoxDied(Exception):
    """A box ended while runs were in it."""

    def __init__(self, ending: CommandOutcome, *, alone: bool, began: bool = True) -> None:
        super().__init__(describe(ending))
        self.ending = ending
        #: The run that hears of it is the only one that the box ever had.
        self.alone = alone
        #: The box may have begun with it; if not, whoever killed the box, this run did not.
        self.began = began


def describe(ending: CommandOutcome) -> str:
    """Say in a few words how a box ended."""
    match ending:
        case Exited(code=code, stderr=said) if code < 0:
            return f"it was killed by {_signal(-code)}{_last_line(said)}"
        case Exited(code=code, stderr=said):
            return f"it ended with code {code}{_last_line(said)}"
        case Stopped(error=error):
            return error.message
        case _:
            assert_never(ending)


def verdict(ending: CommandOutcome, memory_mb: int) -> Outcome:
    """Judge a run that was alone in a box that died: what it did itself is its failure, the rest is ours."""
    match ending:
        case Stopped(error=RunError(kind=ErrorKind.MEMORY_EXCEEDED)):
            return Failed(error=_memory_exceeded(memory_mb))
        case Stopped(error=RunError(kind=ErrorKind.CANCELLED)):
            message = "something in the flow's box spoke for the engine and not as it does, so the box was killed"
            return Failed(error=RunError(kind=ErrorKind.KILLED, message=message))
        case Stopped(error=RunError(kind=ErrorKind.LOST | ErrorKind.INTERNAL) as error):
            return Retry(after=timedelta(seconds=1), reason=error.message)
        case Stopped(error=error):
            return Failed(error=error)
        case Exited():
            message = f"something in the flow ended the engine of its own box: {describe(ending)}"
            return Failed(error=RunError(kind=ErrorKind.KILLED, message=message))
        case _:
            assert_never(ending)


def with_hindsight(outcome: Outcome, ending: CommandOutcome, memory_mb: int) -> Outcome:
    """Blame the memory for a failure in a box that ran short of it: inside, a command was just killed."""
    match outcome:
        case Failed(error=error) if ending.usage.was_short_of_memory and error.kind in _SYMPTOMS:
            return Failed(error=_memory_exceeded(memory_mb, node_id=error.node_id))
        case _:
            return outcome


def _memory_exceeded(memory_mb: int, node_id: str | None = None) -> RunError:
    message = (
        f"the flow's box used more memory than its limit of {memory_mb:,} MB, engine and code together; use less, or "
        f"have the operator raise {_MEMORY}"
    )
    details: JSONObject = {"limit": memory_mb, "raise_with": _MEMORY}
    return RunError(kind=ErrorKind.MEMORY_EXCEEDED, message=message, node_id=node_id, details=details)


def _signal(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return f" and said {lines[-1][:300]!r}" if lines else ""
