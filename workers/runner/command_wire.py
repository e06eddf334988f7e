"""Orders for commands and Python, and their outcomes, in the words of `wire.py`; no I/O."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import assert_never

from schemas.json import JSONObject, JSONValue
from schemas.outcome import RunError
from workers.runner.wire import Said, milliseconds
from workers.sandboxes.box.base import (
    BoxLimits,
    CommandOrder,
    CommandOutcome,
    Exited,
    PythonOrder,
    PythonOutcome,
    Returned,
    Stopped,
    Usage,
)  # fmt: skip
from workers.sandboxes.box.egress import Egress
from workers.sandboxes.containers import ImageOrder


def limits_to(limits: BoxLimits) -> JSONObject:
    return {**asdict(limits), "timeout": milliseconds(limits.timeout)}


def limits_from(said: Said) -> BoxLimits:
    """Read the limits that a run asks for; the worker holds them to its own."""
    return BoxLimits(**{**said, "timeout": timedelta(milliseconds=said["timeout"])})


def command_to(order: CommandOrder) -> JSONObject:
    return {
        "argv": list(order.argv),
        "limits": limits_to(order.limits),
        "stdin": _text(order.stdin),
        "env": dict(order.env),
        "files": _texts(order.files),
        "collect": list(order.collect),
        "cwd": order.cwd,
        "tmp": _texts(order.tmp),
        "keeps_tmp": order.keeps_tmp,
        "network": order.egress.reach != "none",
    }


def image_to(order: ImageOrder) -> JSONObject:
    return {
        "image": order.image,
        "argv": None if order.argv is None else list(order.argv),
        "entrypoint": None if order.entrypoint is None else list(order.entrypoint),
        "limits": limits_to(order.limits),
        "stdin": _text(order.stdin),
        "env": dict(order.env),
        "cwd": order.cwd,
        "network": order.network,
    }


def image_from(said: Said, *, app: str, run_id: str, attempt: int) -> ImageOrder:
    """Read an order; for whom it is is not for the asker to say."""
    return ImageOrder(
        image=str(said["image"]),
        argv=None if said["argv"] is None else tuple(map(str, said["argv"])),
        entrypoint=None if said["entrypoint"] is None else tuple(map(str, said["entrypoint"])),
        app=app,
        run_id=run_id,
        attempt=attempt,
        limits=limits_from(said["limits"]),
        stdin=b64decode(said["stdin"]),
        env=_strings(said["env"]),
        cwd=str(said["cwd"]),
        network=said["network"] is True,
    )


def python_to(order: PythonOrder) -> JSONObject:
    return {
        "source": order.source,
        "inputs": dict(order.inputs),
        "limits": limits_to(order.limits),
        "filename": order.filename,
        "env": dict(order.env),
        "files": _texts(order.files),
        "network": order.egress.reach != "none",
    }


def command_from(said: Said, *, app: str, egress: Egress) -> CommandOrder:
    """Read an order; for whom it is and what it may reach is not for the asker to say."""
    return CommandOrder(
        argv=tuple(map(str, said["argv"])),
        app=app,
        limits=limits_from(said["limits"]),
        stdin=b64decode(said["stdin"]),
        env=_strings(said["env"]),
        files=bytes_from(said["files"]),
        collect=tuple(map(str, said["collect"])),
        cwd=str(said["cwd"]),
        tmp=bytes_from(said["tmp"]),
        keeps_tmp=bool(said["keeps_tmp"]),
        egress=egress,
    )


def python_from(said: Said, *, app: str, egress: Egress) -> PythonOrder:
    """Read an order; for whom it is and what it may reach is not for the asker to say."""
    return PythonOrder(
        source=str(said["source"]),
        inputs=dict(said["inputs"]),
        app=app,
        limits=limits_from(said["limits"]),
        filename=str(said["filename"]),
        env=_strings(said["env"]),
        files=bytes_from(said["files"]),
        egress=egress,
    )


def command_outcome_to(outcome: CommandOutcome) -> JSONObject:
    match outcome:
        case Exited():
            return {
                "is": "exited",
                "code": outcome.code,
                "stdout": _text(outcome.stdout),
                "stderr": _text(outcome.stderr),
                "files": _texts(outcome.files),
                "missing": dict(outcome.missing),
                "tmp": _texts(outcome.tmp),
                "usage": _usage_to(outcome.usage),
            }
        case Stopped():
            return _stopped_to(outcome)
        case _:
            assert_never(outcome)


def command_outcome_from(said: Said) -> CommandOutcome:
    if said["is"] == "stopped":
        return _stopped_from(said)
    return Exited(
        code=said["code"],
        stdout=b64decode(said["stdout"]),
        stderr=b64decode(said["stderr"]),
        files=bytes_from(said["files"]),
        missing=said["missing"],
        tmp=bytes_from(said["tmp"]),
        usage=_usage_from(said["usage"]),
    )


def python_outcome_to(outcome: PythonOutcome) -> JSONObject:
    match outcome:
        case Returned():
            return {"is": "returned", "value": outcome.value, "usage": _usage_to(outcome.usage)}
        case Stopped():
            return _stopped_to(outcome)
        case _:
            assert_never(outcome)


def python_outcome_from(said: Said) -> PythonOutcome:
    if said["is"] == "stopped":
        return _stopped_from(said)
    return Returned(value=said["value"], usage=_usage_from(said["usage"]))


def bytes_from(said: Mapping[str, str]) -> dict[str, bytes]:
    return {str(name): b64decode(text) for name, text in said.items()}


def _strings(said: Mapping[str, str]) -> dict[str, str]:
    return {str(name): str(value) for name, value in said.items()}


def _texts(files: Mapping[str, bytes]) -> JSONObject:
    return {name: _text(content) for name, content in files.items()}


def _text(content: bytes) -> str:
    return b64encode(content).decode()


def _stopped_to(stopped: Stopped) -> JSONObject:
    return {
        "is": "stopped",
        "error": stopped.error.model_dump(mode="json"),
        "stdout": _text(stopped.stdout),
        "stderr": _text(stopped.stderr),
        "usage": _usage_to(stopped.usage),
    }


def _stopped_from(said: Said) -> Stopped:
    return Stopped(
        error=RunError.model_validate(said["error"]),
        stdout=b64decode(said["stdout"]),
        stderr=b64decode(said["stderr"]),
        usage=_usage_from(said["usage"]),
    )


def _usage_to(usage: Usage) -> JSONObject:
    cgroups: list[JSONValue] = [*sorted(usage.cgroups)]
    return {
        "wall_ms": milliseconds(usage.wall),
        "cpu_ms": milliseconds(usage.cpu),
        "peak_memory_bytes": usage.peak_memory_bytes,
        "cgroups": cgroups,
        "was_short_of_memory": usage.was_short_of_memory,
    }


def _usage_from(said: Said) -> Usage:
    return Usage(
        wall=timedelta(milliseconds=said["wall_ms"]),
        cpu=timedelta(milliseconds=said["cpu_ms"]),
        peak_memory_bytes=said["peak_memory_bytes"],
        cgroups=frozenset(said["cgroups"]),
        was_short_of_memory=said["was_short_of_memory"],
    )
