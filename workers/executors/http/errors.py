"""What can come between a worker and an executor.

HttpTrouble
├── NotStarted    the executor did not take the attempt: another one may
├── Dropped       no more is heard of the attempt: ask
├── Gone          the executor has lost the attempt, and is not executing it
└── Nonsense      what it says can't be meant
"""

from __future__ import annotations


class HttpTrouble(Exception):
    """Something came between a worker and an executor."""


class NotStarted(HttpTrouble):
    """The executor did not take the attempt."""


class Dropped(HttpTrouble):
    """No more is heard of the attempt."""


class Gone(HttpTrouble):
    """The executor has lost the attempt."""


class Nonsense(HttpTrouble):
    """What it says can't be meant."""


def is_nobody_there(error: BaseException | None) -> bool:
    """Tell whether a connection was refused: no process listens, so none executes anything."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError):
            return True
        error = error.__cause__ or error.__context__
    return False
