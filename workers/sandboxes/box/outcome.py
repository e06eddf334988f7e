"""Judge how a box ended: whose fault it was, which limit was hit, and what raises it. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

import orjson

from schemas.json import JSONObject, loads
from schemas.outcome import ErrorKind, RunError
from workers.sandboxes.box.base import BoxLimits, CommandOutcome, Exited, PythonOutcome, Returned, Stopped, Usage
from workers.sandboxes.box.cgroups import Tolls
from workers.sandboxes.box.control import LastWords
from workers.sandboxes.box.inside.python import ERROR, VALUE
from workers.sandboxes.box.ways import Death

_USER_KINDS = {kind.value: kind for kind in (ErrorKind.USER, ErrorKind.SYNTAX, ErrorKind.MEMORY_EXCEEDED)}
_LONGEST_STACK = 20_000
#: What programs say when they get no process or thread: Python, and shells in the words of EAGAIN.
_NO_FORK = ("can't start new thread", "Cannot fork", "Resource temporarily unavailable")


class Halt(StrEnum):
    """Why the worker itself ended a box."""

    TIME = "time"
    CPU = "cpu"
    OUTPUT = "output"
    ASKED = "asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """All that is known of a box that is over."""

    halt: Halt | None
    words: LastWords
    death: Death
    tolls: Tolls
    held: frozenset[str]
    wall: timedelta
    stdout: bytes
    stderr: bytes
    #: What came over the result pipe of a Python order.
    answer: bytes = b""


def judge_command(limits: BoxLimits, ending: Ending) -> CommandOutcome:
    """Tell a command's end; it ran to its end unless a limit or a fault stopped it."""
    error = _stopped(limits, ending)
    head = ending.words.head
    if error is None and (head["exit"] != 0):
        error = _failed_by_limit(limits, ending, head["exit"])
    if error is not None:
        return _stop(error, ending)
    files, missing, start = {}, {}, 0
    for name, size, *reason in head["files"]:
        if size == -2:
            return _stop(_files_exceeded(limits), ending)
        if size < 0:
            missing[name] = reason[0]
        else:
            files[name] = ending.words.body[start : start + size]
            start += size
    tmp = {}
    for name, size in head["tmp"]:
        tmp[name] = ending.words.body[start : start + size]
        start += size
    return Exited(
        code=head["exit"], stdout=ending.stdout, stderr=ending.stderr, files=files, missing=missing,
        usage=_usage(ending), tmp=tmp,
    )  # fmt: skip


def judge_python(limits: BoxLimits, filename: str, ending: Ending) -> PythonOutcome:
    """Tell a Python run's end: an answer of the code, or why there is none."""
    error = _stopped(limits, ending)
    if error is not None:
        return _stop(error, ending)
    code = ending.words.head["exit"]
    if ending.answer.startswith(VALUE) and len(ending.answer) <= limits.max_output_bytes + 1:
        try:
            return Returned(value=loads(ending.answer[1:]), usage=_usage(ending))
        except ValueError as problem:
            error = _user(f"what {filename} returned can't be read back as JSON ({problem}); is it nested too deeply?")
    elif ending.answer.startswith(ERROR):
        error = _with_pids(limits, ending, _told(limits, filename, ending.answer[1:]))
    error = error or _failed_by_limit(limits, ending, code) or _user(_no_answer(filename, code))
    return _stop(error, ending)


def _stopped(limits: BoxLimits, ending: Ending) -> RunError | None:
    """Say which limit made the worker end the box, or what was wrong with the box itself."""
    match ending.halt:
        case Halt.TIME:
            limit = limits.timeout // timedelta(milliseconds=1)
            found = f"ran longer than its limit of {limit:,} ms"
            if ending.tolls.forks_refused:  # a bomb of processes that can't grow only waits
                found += f", and {_wanted_pids(limits)}"
            return _limited(ErrorKind.TIMED_OUT, found, limit, "timeout_ms")
        case Halt.CPU:
            return _cpu_exceeded(limits)
        case Halt.OUTPUT:
            limit = limits.max_output_bytes
            return _limited(
                ErrorKind.OUTPUT_EXCEEDED, f"wrote more than its limit of {limit:,} bytes", limit, "max_output_bytes"
            )
        case Halt.ASKED:
            return RunError(kind=ErrorKind.CANCELLED, message="was killed, as its owner asked")
        case None:
            pass
    if "exit" in ending.words.head:
        return None
    if ending.tolls.oom_kills:
        return _memory_exceeded(limits)
    fault = ending.words.head.get("fault") or ending.death.fault
    if fault and not ending.death.fault.startswith("the zygote died"):
        return RunError(kind=ErrorKind.INTERNAL, message=f"the box could not be made: {fault}")
    reason = fault or f"its first process ended with code {ending.death.code}"
    return RunError(kind=ErrorKind.LOST, message=f"the box was lost: {reason}")


def _failed_by_limit(limits: BoxLimits, ending: Ending, code: int) -> RunError | None:
    """Find the limit behind a failure, if one was hit on the way."""
    if ending.tolls.oom_kills:
        return _memory_exceeded(limits)
    if code in (-signal.SIGXCPU, 128 + signal.SIGXCPU):
        return _cpu_exceeded(limits)
    if code in (-signal.SIGXFSZ, 128 + signal.SIGXFSZ):
        limit = limits.file_size_mb
        return _limited(ErrorKind.OUTPUT_EXCEEDED, f"made a file over {limit:,} MB", limit, "file_size_mb")
    said = ending.stderr.decode(errors="replace")
    # Where no cgroup counts them, only what the program said tells of it.
    if ending.tolls.forks_refused or ("pids" not in ending.held and any(sign in said for sign in _NO_FORK)):
        return _limited(ErrorKind.USER, f"failed, and {_wanted_pids(limits)}", limits.pids, "pids")
    return None


def _told(limits: BoxLimits, filename: str, answer: bytes) -> RunError:
    """Read the error that the code's own process sent: its word, so only its text and its kind are taken."""
    try:
        said: dict[str, Any] = orjson.loads(answer)
        kind, message = said["kind"], str(said["message"])
    except (ValueError, LookupError, TypeError):
        return _user(f"{filename} ended without a result that can be read")
    if kind == "output_exceeded":
        limit = limits.max_output_bytes
        found = f"returned {said.get('size', 0):,} bytes of JSON, over its limit of {limit:,}"
        return _limited(ErrorKind.OUTPUT_EXCEEDED, found, limit, "max_output_bytes")
    if kind == "memory_exceeded":
        return _memory_exceeded(limits)
    details: JSONObject = {name: said[name] for name in ("line", "column") if isinstance(said.get(name), int)}
    if isinstance(said.get("stack"), str):
        details["stack"] = said["stack"][-_LONGEST_STACK:]
    place = ":".join([filename, *(str(details[name]) for name in ("line", "column") if name in details)])
    return RunError(
        kind=_USER_KINDS.get(kind, ErrorKind.USER),
        message=f"{place}: {message}" if "line" in details else message,
        details=details or None,
    )


def _with_pids(limits: BoxLimits, ending: Ending, error: RunError) -> RunError:
    """Name the limit on processes behind an exception that only says that there are none to be had."""
    counted = ending.tolls.forks_refused or "pids" not in ending.held
    if error.kind is not ErrorKind.USER or not counted or not any(sign in error.message for sign in _NO_FORK):
        return error
    limit: JSONObject = {"limit": limits.pids, "raise_with": "pids"}
    message = f"{error.message}; it {_wanted_pids(limits)}: use fewer or raise pids"
    return error.model_copy(update={"message": message, "details": {**(error.details or {}), **limit}})


def _wanted_pids(limits: BoxLimits) -> str:
    return f"wanted more than its limit of {limits.pids:,} processes and threads at once"


def _no_answer(filename: str, code: int) -> str:
    if code < 0:
        return f"{filename} was killed by {signal.Signals(-code).name} before main returned"
    return f"{filename} ended its process (exit code {code}) before main returned"


def _memory_exceeded(limits: BoxLimits) -> RunError:
    limit = limits.memory_mb
    return _limited(ErrorKind.MEMORY_EXCEEDED, f"used more memory than its limit of {limit:,} MB", limit, "memory_mb")


def _cpu_exceeded(limits: BoxLimits) -> RunError:
    limit = limits.cpu_seconds or 0
    return _limited(ErrorKind.TIMED_OUT, f"used more processor time than {limit:g} s", limit, "cpu_seconds")


def _files_exceeded(limits: BoxLimits) -> RunError:
    limit = limits.max_output_bytes
    found = f"left files of more than {limit:,} bytes to collect"
    return _limited(ErrorKind.OUTPUT_EXCEEDED, found, limit, "max_output_bytes")


def _limited(kind: ErrorKind, found: str, limit: float, raise_with: str) -> RunError:
    return RunError(
        kind=kind,
        message=f"{found}; use less or raise {raise_with}",
        details={"limit": limit, "raise_with": raise_with},
    )


def _user(message: str) -> RunError:
    return RunError(kind=ErrorKind.USER, message=message)


def _stop(error: RunError, ending: Ending) -> Stopped:
    return Stopped(error=error, stdout=ending.stdout, stderr=ending.stderr, usage=_usage(ending))


def _usage(ending: Ending) -> Usage:
    cpu = ending.tolls.cpu_seconds
    if cpu is None:
        cpu = ending.words.head.get("cpu_seconds", ending.death.cpu_seconds)
    largest = ending.words.head.get("largest_kb", ending.death.largest_kb) * 1024
    return Usage(
        wall=ending.wall,
        cpu=timedelta(seconds=cpu),
        peak_memory_bytes=ending.tolls.peak_memory_bytes or largest,
        cgroups=ending.held,
        was_short_of_memory=ending.tolls.oom_kills > 0,
    )
