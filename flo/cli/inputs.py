"""Reads what the user gives: JSON on the command line, in a file, or on stdin."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import cast

from flo.errors import Mistake
from flo.wire import JSONValue


def read_payload(given: str) -> JSONValue:
    """Read `--input`: JSON text, `@FILE`, or `@-` for stdin."""
    if given.startswith("@"):
        return json_file(given[1:])
    return parse(given, what="--input")


def json_file(file: str) -> JSONValue:
    """Read a JSON file; `-` is stdin. Raises Mistake that names line and column."""
    if not file:
        raise Mistake("@ is followed by no file: give @FILE, or @- for stdin")
    what = "stdin" if file == "-" else file
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as refusal:
        raise Mistake(f"{file} can't be read ({refusal.strerror}): give the path of a file that exists") from None
    except UnicodeDecodeError as mistake:
        raise Mistake(
            f"{what} is not UTF-8 text ({mistake.reason} at byte {mistake.start}): save it as UTF-8"
        ) from None
    return parse(text, what=what)


def parse(text: str, *, what: str) -> JSONValue:
    """Parse JSON; raise Mistake that shows the place."""
    try:
        return cast(JSONValue, json.loads(text, parse_constant=partial(_refuse, what)))
    except json.JSONDecodeError as mistake:
        place = f"line {mistake.lineno}, column {mistake.colno}"
        lines = text.splitlines()
        wrong = lines[mistake.lineno - 1] if mistake.lineno <= len(lines) else ""
        raise Mistake(f"{what} is not JSON: {mistake.msg} at {place}{_shown(wrong, mistake.colno)}") from None
    except RecursionError:
        raise Mistake(f"{what} is nested too deeply: flatten it") from None
    except ValueError:  # Python's own limit
        raise Mistake(f"{what} has a number of more than 4,300 digits: write it as text, in quotes") from None


def _refuse(what: str, word: str) -> None:
    raise Mistake(f"{what} is not JSON: it has no word for {word}; write null, or text in quotes")


def _shown(line: str, column: int) -> str:
    """Quote a line with a mark under the column; a long line is cut around it."""
    start = max(0, column - 40)
    quoted = line[start : start + 80]
    return f"\n  {quoted}\n  {' ' * (column - 1 - start)}^" if quoted.strip() else ""
