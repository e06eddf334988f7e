"""What a worker and a function say to each other. No I/O.

An invocation's event is one of
    {"order": Order, "until": 1790000000.0}         execute this; stop at `until` (seconds since 1970) at the latest
    {"api": "https://...", "token": "..."}          take the order from the API, and tell it everything
and of a Function URL, the HTTP request with one of these as its body. The answer is
    {"events": [...], "outcome": {...}}             lines of `server/words.py`, flushes among them, and the end
    {"told": {"reason": null, "elsewhere": false}}  the API knows the end, or does not for this reason
A function that streams says the same as lines of JSON: those of `server/words.py`, or at last {"say": "told", "told"}.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from schemas.app import AppLimits
from schemas.errors import FloError
from schemas.json import JSONObject, loads
from workers.executors.base import RunOrder
from workers.runner.channel import line_of
from workers.runner.server.words import Order, order_words

#: Most bytes of a response that is not streamed, and of an event: Lambda's own limit is 6 MB, headers included.
MOST_ANSWERED = 6 * 1024 * 1024 - 16 * 1024
MOST_SENT = MOST_ANSWERED


class NotAnEvent(FloError):
    """The function was invoked with something that is not for it."""


class Inline(BaseModel):
    """An order that comes with the event."""

    model_config = ConfigDict(extra="forbid")

    order: Order
    until: float = Field(description="when the attempt must be over, in seconds since 1970: its run is lent until then")


class Token(BaseModel):
    """An order that waits at the API."""

    model_config = ConfigDict(extra="forbid")

    api: str = Field(pattern=r"^https?://[^\s?#]+$")
    token: str


Call: TypeAlias = Inline | Token
_CALL: TypeAdapter[Call] = TypeAdapter(Call)


@dataclass(frozen=True, slots=True)
class Answer:
    """All that a function which does not stream says of an attempt."""

    #: Lines in the words of `server/words.py`, without the last.
    lines: Sequence[Mapping[str, Any]]
    outcome: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """The function executes nothing any more, and has told the API everything."""

    #: Why it has not.
    reason: str | None = None
    #: The API would not have it: another process may execute the attempt.
    elsewhere: bool = False


def inline_to(order: RunOrder, limits: AppLimits, *, until: float) -> bytes:
    """Write an event that holds all that the function needs."""
    # `confirms` has the engine ask for durability; a function can't be answered, so it passes the wish on and goes on.
    return line_of({"order": {**order_words(order, limits), "confirms": True}, "until": until})


def token_to(api: str, token: str) -> bytes:
    """Write an event whose order waits at the API."""
    return line_of({"api": api, "token": token})


def call_from(event: Any) -> Call:
    """Read an event. Raises NotAnEvent."""
    try:
        return _CALL.validate_python(_body_of(event))
    except ValidationError as mistakes:
        first = mistakes.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise NotAnEvent(
            f"this function executes Flo's runs, and was given no order ({at}: {first['msg']}); have workers invoke it "
            "(LAMBDA_EXECUTOR_FUNCTION)"
        ) from None
    except (ValueError, TypeError) as mistake:
        raise NotAnEvent(f"the request to this function's URL has no order as its body: {mistake}") from None


def answer_to(lines: Sequence[JSONObject], outcome: Mapping[str, Any]) -> JSONObject:
    return {"events": list(lines), "outcome": dict(outcome)}


def told_to(told: Told) -> JSONObject:
    return {"told": {"reason": told.reason, "elsewhere": told.elsewhere}}


def answer_from(said: Mapping[str, Any]) -> Answer | Told:
    """Read an answer. Raises ValueError, LookupError or TypeError."""
    if "told" in said:
        reason = said["told"]["reason"]
        return Told(None if reason is None else str(reason), bool(said["told"]["elsewhere"]))
    return Answer(said["events"], said["outcome"])


def _body_of(event: Any) -> Any:
    """Unwrap the HTTP request of a Function URL (payload format 2.0)."""
    if not isinstance(event, Mapping) or "http" not in (event.get("requestContext") or {}):
        return event
    body = event.get("body") or ""
    try:
        return loads(base64.b64decode(body, validate=True) if event.get("isBase64Encoded") else body)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
