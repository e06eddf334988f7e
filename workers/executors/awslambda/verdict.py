"""What it means for a run that its function failed; pure."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from schemas.outcome import ErrorKind, Failed, Outcome, Retry, RunError
from workers.executors.awslambda.errors import FunctionFailed

_AGAIN: Final = timedelta(seconds=1)
#: What Lambda says of a function that ran for too long, and of one whose process the kernel killed for its memory.
_TOO_LONG: Final = "Task timed out after"
_KILLED: Final = "signal: killed"


def verdict(failure: FunctionFailed, *, function: str) -> Outcome:
    """Judge a run whose function ended without an answer: it was alone there, so its hunger is its own.

    Whatever else ended the function is no fault of the flow: another attempt may fare better.
    """
    if _TOO_LONG in failure.message or failure.kind == "Sandbox.Timedout":
        message = (
            f"the function {function} was ended by Lambda ({failure.message.strip()}); raise its Timeout (at most "
            "900 s), or lower settings.max_execution_time_ms"
        )
        return Failed(error=RunError(kind=ErrorKind.TIMED_OUT, message=message))
    if _KILLED in failure.message or failure.kind in ("Runtime.OutOfMemory", "Function.OutOfMemory"):
        message = (
            f"the function {function} used more memory than it has and was killed ({failure.message.strip()}); use "
            "less, or raise its MemorySize"
        )
        error = RunError(kind=ErrorKind.MEMORY_EXCEEDED, message=message, details={"raise_with": "MemorySize"})
        return Failed(error=error)
    return Retry(after=_AGAIN, reason=f"the function {function} failed: {failure}")
