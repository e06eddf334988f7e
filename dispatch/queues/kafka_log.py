"""aiokafka's own log, at a bearable pace: it words each try at a broker that is away in several lines."""

from __future__ import annotations

import logging
import time

#: The same line is written again after this many seconds.
_AGAIN = 30.0


class Seldom(logging.Filter):
    """Lets each kind of line through once in a while."""

    def __init__(self) -> None:
        super().__init__()
        self._written: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        kind = str(record.msg)
        if now - self._written.get(kind, -_AGAIN) < _AGAIN:
            return False
        self._written[kind] = now
        return True


_SELDOM = Seldom()


def slow_down() -> None:
    """Slow aiokafka's loggers down; all of them exist once it is imported."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("aiokafka"):
            logging.getLogger(name).addFilter(_SELDOM)
