"""Talks to the engine of this machine, `python -P -m workers.runner`, which prints one JSON value to a line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import typer

from flo.errors import FloError, Mistake, Problem
from flo.orphans import die_with_parent


class WrongFlow(Mistake):
    """The document has mistakes; carries them as the runner wrote them."""

    def __init__(self, problems: Sequence[dict[str, str]]) -> None:
        self.problems = problems
        wrong = [
            Problem(path=p["path"], message=p["message"], fix=p["fix"]) for p in problems if p["severity"] != "note"
        ]
        count = f"{len(wrong)} problem{'s' if len(wrong) != 1 else ''} in the flow:"
        super().__init__("\n".join([count, *(f"  {problem}" for problem in wrong)]))


def lines(*arguments: str) -> Iterator[Any]:
    """Run the runner and give each value that it prints; a document with mistakes raises them all."""
    command = [sys.executable, "-P", "-m", "workers.runner", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=die_with_parent()) as runner:  # noqa: PLW1509 - one thread
        assert runner.stdout is not None
        try:
            # At a Ctrl-C the runner, which gets it too, cancels the run and says so: listen to its end.
            with suppress(KeyboardInterrupt):
                yield from map(_read, runner.stdout)
            yield from map(_read, runner.stdout)
        except BaseException:  # nobody reads on (`| head`): cancel the run
            runner.terminate()
            runner.stdout.read()
            raise
    if runner.returncode == 2:  # it has said why
        raise typer.Exit(2)
    if runner.returncode not in (0, 1):
        raise FloError(f"the runner ended with exit code {runner.returncode}; what it printed above says why")


def answer(*arguments: str) -> Any:
    """Run the runner and give the last value that it prints."""
    return list(lines(*arguments))[-1]


def _read(line: bytes) -> Any:
    value = json.loads(line)
    if isinstance(value, dict) and value.get("ok") is False:
        raise WrongFlow(value["problems"])
    return value
