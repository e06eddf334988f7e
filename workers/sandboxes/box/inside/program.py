"""Become the user's program: run a command, a Python main, or an entry that the zygote has imported."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from .task import Task

#: What a shell answers when a command is not there, or can't be run.
_NOT_FOUND, _NOT_RUNNABLE = 127, 126


def run(task: Task) -> NoReturn:
    if task.source:
        os.set_inheritable(task.extra_fd, False)  # what the code starts is no part of its answer
    os.environ.clear()
    os.environ.update(task.env)
    if task.cwd:
        _start_in(task.cwd)
    if task.argv:
        _execute(task)
    from . import python

    python.run(task)


def _start_in(folder: str) -> None:
    try:
        if not folder.startswith("/"):
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - plain calls: see confine.py
        os.chdir(folder)
    except OSError as problem:
        os.write(2, f"flo: can't start in {folder}: {problem.strerror}\n".encode())
        os._exit(_NOT_RUNNABLE)


def _execute(task: Task) -> NoReturn:
    name = task.argv[0]
    try:
        os.execvpe(name, task.argv, task.env)
    except OSError as problem:
        found = not isinstance(problem, (FileNotFoundError, NotADirectoryError))
        os.write(2, f"flo: {name}: {problem.strerror}\n".encode())
        os._exit(_NOT_RUNNABLE if found else _NOT_FOUND)
    finally:
        sys.exit(_NOT_RUNNABLE)
