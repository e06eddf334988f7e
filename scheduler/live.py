"""One ear on the bell for all live feeds of this process; feeds come and go, the bell knows only this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from dispatch.bell import Bell, Topic
from schemas.json import JSONValue

Listener = Callable[[set[str]], None]


class Ear:
    """Passes on which runs have news."""

    def __init__(self, bell: Bell) -> None:
        self._listeners: set[Listener] = set()
        bell.listen(Topic.EVENTS, self._hear)

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Call `listener` with the ids of runs that have news, until the end of the block."""
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)

    def _hear(self, hint: JSONValue) -> None:
        if self._listeners:
            run_ids = {run_id for run_id, _ in cast(list[tuple[str, int]], hint)}
            for listener in tuple(self._listeners):
                listener(run_ids)
