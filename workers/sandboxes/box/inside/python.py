"""Run a user's Python: `main(**inputs)` of a source, its result as JSON over a pipe that no print can reach.

The code shares this process, so what it sends is its own word, however it sends it: it can choose its result or its
error, and nothing else. The worker reads one answer of limited size and trusts nothing in it.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import io
import json
import linecache
import os
import sys
import traceback
import types
from typing import Any, NoReturn

from .task import Task

#: Stack lines kept for the user.
_STACK_LINES = 40
#: What `sys.argv` and the traceback call the user's module.
_MODULE = "__flo__"


def run(task: Task) -> NoReturn:
    """Call the code, send its answer, and end this process."""
    _fresh_streams()
    gc.unfreeze()
    gc.enable()
    if task.entry:
        _call_entry(task)
    answer = _answer(task)
    _flush()
    with open(task.extra_fd, "wb", closefd=False) as pipe:
        pipe.write(answer)
    os._exit(0)


def _answer(task: Task) -> bytes:
    dumps, encode = json.dumps, str.encode  # taken before user code can put others in their place
    try:
        value = _call(task)
        text = encode(dumps(value, allow_nan=False, ensure_ascii=False), "utf-8", "replace")
    except SyntaxError as problem if False else _Nothing:
        raise
    return text


class _Nothing(Exception): ...
