"""What goes into a code sandbox and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeAlias

from schemas.json import JSONValue
from schemas.outcome import ErrorKind, RunError

#: Called with (level, message) while the code runs; level is debug, info, warning or error.
OnLog: TypeAlias = Callable[[str, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeOrder:
    """One run of one piece of code."""

    #: ES module or CommonJS whose default export is a function of the inputs object, sync or async.
    source: str
    inputs: Mapping[str, JSONValue]
    #: Sandboxes are never shared across apps; a V8 isolate is not even used twice.
    app: str
    #: Wall clock, from the start of compiling to the result as JSON.
    timeout: timedelta
    memory_mb: int
    max_output_bytes: int = 1_000_000
    #: What stacks and messages call this code.
    filename: str = "code.js"


@dataclass(frozen=True, slots=True)
class CodeReturned:
    """What the default export returned; undefined is None."""

    value: JSONValue


@dataclass(frozen=True, slots=True)
class CodeFailed:
    """Why there is no value; `error.node_id` is None."""

    error: RunError


CodeOutcome: TypeAlias = CodeReturned | CodeFailed


class NoCode:
    """Refuses to run code: for places that have none."""

    async def run(self, order: CodeOrder, on_log: OnLog) -> CodeOutcome:
        return CodeFailed(RunError(kind=ErrorKind.FORBIDDEN, message="there is no place for code here"))

    async def aclose(self) -> None:
        return


class CodeSandbox(Protocol):
    """A place in which code runs without reaching anything else."""

    async def run(self, order: CodeOrder, on_log: OnLog) -> CodeOutcome:
        """Run the code; never raises for what the code does. Cancelling the task kills the code."""
        ...

    async def aclose(self) -> None:
        """Kill and confirm dead whatever is left."""
        ...
