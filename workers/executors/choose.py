"""Which executor a run is handed to: the one it asks for, else the worker's own default."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.errors import Unavailable
from schemas.settings import ExecutorName
from workers.executors.base import Executor


class ExecutorChoice:
    """The executors that work in this worker."""

    def __init__(self, executors: Mapping[ExecutorName, Executor], *, default: ExecutorName) -> None:
        """Raises Unavailable when the default is not among them."""
        self._executors = executors
        self.default = str(default)
        self.choose(None)

    def choose(self, mode: str | None) -> Executor:
        """Raises Unavailable, naming those that work here."""
        wanted = mode or self.default
        for name, executor in self._executors.items():
            if name == wanted:
                return executor
        here = ", ".join(sorted(str(name) for name in self._executors))
        raise Unavailable(f"this worker has no executor {wanted!r}, only: {here}; set FLO_EXECUTOR or the run's `mode`")

    async def aclose(self) -> None:
        for executor in self._executors.values():
            await executor.aclose()
