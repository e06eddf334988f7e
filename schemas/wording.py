"""How a mistake is worded for the person who made it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from schemas.errors import Problem
from schemas.json import dumps

#: Characters of a wrong value that a message repeats.
SHOWN = 60


def short(value: Any) -> str:
    """Write a value as JSON, cut to a length that fits a sentence."""
    match value:  # big things are not written out only to be cut
        case dict() if len(value) > 8:
            return f"an object of {len(value)} keys"
        case list() if len(value) > 8:
            return f"an array of {len(value)} items"
    text = dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Suggest the known word that was probably meant; empty when none is close."""
    close = difflib.get_close_matches(given, known, n=1)
    return f'did you mean "{close[0]}"?' if close else ""


def listed(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"


def join_path(path: str, steps: Sequence[str | int]) -> str:
    """Extend `nodes[2]` by ("config", "code") to `nodes[2].config.code`."""
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def problems_of(mistakes: ValidationError, *, path: str, model: type[BaseModel]) -> list[Problem]:
    """Word every mistake that pydantic found in the part of a document at `path`."""
    return [_problem(mistake, path, model) for mistake in mistakes.errors(include_url=False)]


def _problem(mistake: ErrorDetails, path: str, model: type[BaseModel]) -> Problem:
    steps = mistake["loc"]
    where = join_path(path, steps)
    last = str(steps[-1]) if steps else ""
    match mistake["type"]:
        case "missing":
            return Problem(path=where, message=f'"{last}" is missing', fix=f'add "{last}"')
        case "extra_forbidden":
            known = sorted(_keys(_model_at(model, steps[:-1])))
            fix = did_you_mean(last, known) or f'remove "{last}"'
            return Problem(path=where, message=f'unknown key "{last}"; allowed: {listed(known)}', fix=fix)
        case "model_type" | "model_attributes_type" | "dict_type":
            return Problem(path=where, message=f"must be an object; given {short(mistake['input'])}")
        case "value_error" if not steps or isinstance(mistake["input"], dict):
            return Problem(path=where, message=reworded(mistake["msg"]))
        case "string_too_short" if mistake["input"] == "":
            return Problem(path=where, message="must not be empty")
        case "literal_error":
            fix = did_you_mean(str(mistake["input"]), re.findall(r"'([^']*)'", mistake["msg"]))
            return Problem(path=where, message=f"{reworded(mistake['msg'])}; given {short(mistake['input'])}", fix=fix)
    return Problem(path=where, message=f"{reworded(mistake['msg'])}; given {short(mistake['input'])}")


def reworded(said: str) -> str:
    """Word what pydantic says of a mistake as the end of a sentence that begins with its place."""
    text = said.removeprefix("Value error, ").replace("Input should be a valid", "must be a")
    text = (
        text.replace("Input should", "must")
        .replace("String should", "must")
        .replace("must be a integer", "must be a whole number")
    )
    return text.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_at(model: type[BaseModel], steps: Sequence[str | int]) -> type[BaseModel]:
    for step in steps:
        field = model.model_fields.get(str(step))
        inner = [kind for kind in _kinds(field.annotation) if issubclass(kind, BaseModel)] if field else []
        model = inner[0] if inner else model
    return model


def _kinds(annotation: Any) -> Iterable[type]:
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for argument in get_args(annotation):
        yield from _kinds(argument)
