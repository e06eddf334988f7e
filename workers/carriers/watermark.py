"""How far one partition is done: Kafka takes a single number, below which every message is decided."""

from __future__ import annotations

from collections import deque


class Watermark:
    """Follows the messages of one partition, for as long as it is assigned to this worker. Pure."""

    def __init__(self) -> None:
        #: Set when the partition goes to another worker: what was delivered under this mark is no longer ours.
        self.lost = False
        self._delivered: deque[int] = deque()
        self._decided: set[int] = set()
        self._next: int | None = None

    def deliver(self, offset: int) -> bool:
        """Note a message; False for one that came before."""
        if self._next is not None and offset < self._next:
            return False
        self._delivered.append(offset)
        self._next = offset + 1
        return True

    def decide(self, offset: int) -> None:
        """Note that a delivered message has done its work."""
        self._decided.add(offset)
        while self._delivered and self._delivered[0] in self._decided:
            self._decided.discard(self._delivered.popleft())

    @property
    def position(self) -> int | None:
        """The offset to commit: that of the first undecided message. None before anything was delivered."""
        return self._delivered[0] if self._delivered else self._next
