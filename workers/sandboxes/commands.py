"""The place in which commands and Python run, as nodes know it, and the one that a worker without any has."""

from __future__ import annotations

from typing import Protocol

from schemas.nodes.boxed import PROCESS_MODES
from schemas.outcome import ErrorKind, RunError
from workers.sandboxes.box.base import (
    NO_USAGE,
    CommandOrder,
    CommandOutcome,
    OnOutput,
    PythonOrder,
    PythonOutcome,
    Stopped,
)  # fmt: skip


class CommandSandbox(Protocol):
    """Runs commands and Python: the namespace box, or plain processes where the operator wants no sandbox."""

    async def run(self, order: CommandOrder, on_output: OnOutput) -> CommandOutcome:
        """Run a command; raises Refused for an order that can't be filled, and nothing for what the command does."""
        ...

    async def run_python(self, order: PythonOrder, on_output: OnOutput) -> PythonOutcome:
        """Run `main(**inputs)`; raises Refused for an order that can't be filled, nothing for what the code does."""
        ...


class NoBox:
    """Refuses every order, and says what would take them."""

    async def run(self, order: CommandOrder, on_output: OnOutput) -> CommandOutcome:
        return _refused("commands")

    async def run_python(self, order: PythonOrder, on_output: OnOutput) -> PythonOutcome:
        return _refused("Python")


def _refused(what: str) -> Stopped:
    modes = " or ".join(sorted(PROCESS_MODES))
    message = f"this worker has no place for {what}; run it with FLO_EXECUTION_MODE={modes}"
    return Stopped(error=RunError(kind=ErrorKind.FORBIDDEN, message=message), stdout=b"", stderr=b"", usage=NO_USAGE)
