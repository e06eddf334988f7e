"""Turn a host's last word on a run into an outcome; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from schemas.json import JSONObject, loads_foreign
from schemas.outcome import ErrorKind, RunError
from workers.sandboxes.base import CodeFailed, CodeOrder, CodeOutcome, CodeReturned

#: Stack lines kept for the user.
STACK_LINES = 20


def outcome_of(order: CodeOrder, answer: dict[str, Any], hints: Mapping[str, str]) -> CodeOutcome:
    """Read a `done` message: `{value}`, or `{kind, message?, stack?, line?, column?}`.

    `hints` say what to do about a global that is not there.
    """
    try:
        return _read_answer(order, answer, hints)
    except (LookupError, TypeError, ValueError, AttributeError) as problem:
        return internal_error(f"The host gave an answer that can't be read: {problem!r}")


def _read_answer(order: CodeOrder, answer: dict[str, Any], hints: Mapping[str, str]) -> CodeOutcome:
    if "value" in answer:
        return _returned(order, answer["value"])
    match answer["kind"]:
        case "memory_exceeded":
            return memory_exceeded(order)
        case "output_exceeded":
            return _output_exceeded(order, answer["message"])
        case "syntax_error":
            return _placed(order, ErrorKind.SYNTAX, answer["message"], (answer["line"], answer["column"]))
        case "user_error" if "line" in answer:
            return _placed(order, ErrorKind.USER, answer["message"], (answer["line"], answer["column"]))
        case "user_error" if answer["message"] == "RangeError: Array buffer allocation failed":
            return memory_exceeded(order)
        case "user_error":
            return _threw(order, _with_hint(answer["message"], hints), answer.get("stack", ""))
    raise ValueError(f"unknown kind {answer['kind']!r}")


def timed_out(order: CodeOrder) -> CodeFailed:
    limit = order.timeout // timedelta(milliseconds=1)
    return _limited(
        ErrorKind.TIMED_OUT,
        f"{order.filename} ran longer than its limit of {limit:,} ms; make it quicker or raise timeout_ms",
        {"limit": limit, "raise_with": "timeout_ms"},
    )


def memory_exceeded(order: CodeOrder) -> CodeFailed:
    return _limited(
        ErrorKind.MEMORY_EXCEEDED,
        f"{order.filename} used more memory than its limit of {order.memory_mb:,} MB; use less or raise memory_mb",
        {"limit": order.memory_mb, "raise_with": "memory_mb"},
    )


def lost(reason: str) -> CodeFailed:
    return CodeFailed(RunError(kind=ErrorKind.LOST, message=reason))


def killed(reason: str) -> CodeFailed:
    return CodeFailed(RunError(kind=ErrorKind.KILLED, message=reason))


def internal_error(reason: str) -> CodeFailed:
    return CodeFailed(RunError(kind=ErrorKind.INTERNAL, message=reason))


def _output_exceeded(order: CodeOrder, size: str) -> CodeFailed:
    found = f"is {int(size):,} bytes" if size else "is larger than a string can be"
    limit = order.max_output_bytes
    return _limited(
        ErrorKind.OUTPUT_EXCEEDED,
        f"what {order.filename} returned {found}, over the limit of {limit:,} bytes; "
        "return less or raise max_output_bytes",
        {"limit": limit, "raise_with": "max_output_bytes"},
    )


def _threw(order: CodeOrder, message: str, stack: str) -> CodeFailed:
    frames = _user_frames(order.filename, stack)
    if not frames:
        return CodeFailed(RunError(kind=ErrorKind.USER, message=message))
    return _placed(order, ErrorKind.USER, message, _place(order.filename, frames[0]), frames)


def _placed(
    order: CodeOrder, kind: ErrorKind, message: str, place: tuple[int, int] | None, frames: Sequence[str] = ()
) -> CodeFailed:
    details: JSONObject = {}
    if frames:
        details["stack"] = "\n".join([message, *frames])
    if place is not None:
        line, column = place
        message = f"{order.filename}:{line}:{column}: {message}"
        details |= {"line": line, "column": column}
    return CodeFailed(RunError(kind=kind, message=message, details=details))


def _with_hint(message: str, hints: Mapping[str, str]) -> str:
    """Say what to do about a global that other places have and this one has not."""
    missing = re.fullmatch(r"ReferenceError: (\w+) is not defined", message)
    hint = hints.get(missing[1]) if missing else None
    return f"{message} ({hint})" if hint else message


def _user_frames(filename: str, stack: str) -> list[str]:
    """Keep the stack's lines that lie in the user's own code."""
    frames = [line for line in stack.split("\n") if line.startswith("    at ") and f"{filename}:" in line]
    return frames[:STACK_LINES]


def _place(filename: str, frame: str) -> tuple[int, int] | None:
    found = re.search(rf"{re.escape(filename)}:(\d{{1,9}}):(\d{{1,9}})", frame)
    return (int(found[1]), int(found[2])) if found else None


def _limited(kind: ErrorKind, message: str, details: JSONObject) -> CodeFailed:
    return CodeFailed(RunError(kind=kind, message=message, details=details))


def _returned(order: CodeOrder, text: str) -> CodeOutcome:
    try:
        return CodeReturned(loads_foreign(text))
    except ValueError as problem:
        message = f"what {order.filename} returned can't be read back as JSON ({problem}); is it nested too deeply?"
        return CodeFailed(RunError(kind=ErrorKind.USER, message=message))
