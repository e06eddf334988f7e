"""What can come between a worker and a function.

LambdaTrouble
├── Throttled       the function was not started, as too many are; the same request may be taken later
├── NeverBegan      the function was not started, for a reason that stays until somebody acts
├── FunctionFailed  the function ended without an answer
└── BrokeOff        no more is heard of it; it may go on
"""

from __future__ import annotations

from schemas.json import loads


class LambdaTrouble(Exception):
    """Something came between a worker and a function."""


class Throttled(LambdaTrouble):
    """The function was not started, as too many are."""


class NeverBegan(LambdaTrouble):
    """The function was not started; the message names the fix."""


class BrokeOff(LambdaTrouble):
    """No more is heard of the function; it may go on."""


class FunctionFailed(LambdaTrouble):
    """The function ended without an answer."""

    def __init__(self, kind: str, message: str) -> None:
        """`kind` and `message` are Lambda's own words: `errorType` and `errorMessage`."""
        super().__init__(f"{kind}: {message}" if kind else message)
        self.kind = kind
        self.message = message


def failure_in(payload: bytes) -> FunctionFailed:
    """Read what Lambda says of a function that failed."""
    try:
        said = loads(payload)
        return FunctionFailed(str(said.get("errorType", "")), str(said.get("errorMessage", "")))
    except (ValueError, AttributeError):
        return FunctionFailed("", payload[:1000].decode(errors="replace"))
