"""What the runner prints on stdout, one JSON value to a line.

`run --events`    each happening as the run events of the API, `{"seq", "run_id", "type", "time", ...}`; at last the run
`run`             the run alone, `{"run_id", ..., "nodes"}`: the one line without `type`
`validate`        `{"ok": true, "name", "nodes", "hash", "problems": [notes]}`
a wrong document  `{"ok": false, "problems": [{"path", "message", "fix", "severity"}]}`, and exit code 2

Exit codes: 0 it went well, 1 the run failed, 2 the user's mistake.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TextIO

from pydantic import BaseModel

from schemas.errors import Invalid, Problem
from schemas.flow import FlowDocument, content_hash
from schemas.json import JSONObject, JSONValue, dumps
from schemas.run import Happening, RunEvent

OK, RUN_FAILED, USERS_MISTAKE = 0, 1, 2


def write_line(value: JSONValue | BaseModel, out: TextIO | None = None) -> None:
    """Print one line, at once."""
    out = out or sys.stdout
    # Not pydantic's own writer: a node of anybody's may have given what that refuses.
    text = dumps(value.model_dump(mode="json") if isinstance(value, BaseModel) else value)
    out.write(f"{text}\n")
    out.flush()


def silence_stdout() -> None:
    """Send what is still to be printed nowhere: whoever read it has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class LineSink:
    """Keeps the happenings of a run, and prints each as a line if asked to."""

    def __init__(self, run_id: str, *, printing: bool, on_reader_gone: Callable[[], object]) -> None:
        self.happenings: list[Happening] = []
        self._run_id = run_id
        self._printing = printing
        self._on_reader_gone = on_reader_gone

    def emit(self, happening: Happening) -> None:
        self.happenings.append(happening)
        if not self._printing:
            return
        try:
            write_line(RunEvent(self._run_id, len(self.happenings), happening).as_json())
        except BrokenPipeError:
            self._printing = False
            silence_stdout()
            self._on_reader_gone()

    async def flush(self) -> None:
        """Nothing to wait for: a line is out when it is emitted."""


def valid(document: FlowDocument, notes: Sequence[Problem]) -> JSONObject:
    return {
        "ok": True,
        "name": document.name,
        "nodes": len(document.nodes),
        "hash": content_hash(document),
        "problems": [asdict(note) for note in notes],
    }


def invalid(mistakes: Invalid) -> JSONObject:
    return {"ok": False, "problems": [asdict(problem) for problem in mistakes.problems]}
