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
import signal
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any, NoReturn

from .task import Task

#: Stack lines kept for the user, from the innermost.
_STACK_LINES = 30
#: First byte of an answer.
VALUE, ERROR = b"V", b"E"


def run(task: Task) -> NoReturn:
    """Call the code, send its answer, and end this process."""
    _open_streams()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)  # as in any Python: the call that went wrong raises instead
    gc.unfreeze()
    gc.enable()
    if task.entry:
        _call_entry(task)
    answer = _answer(task, json.dumps)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:  # noqa: BLE001, S112 - user code may have put anything there
            continue
    left = memoryview(answer)
    while left:
        left = left[os.write(task.extra_fd, left) :]
    os._exit(0)


def _answer(task: Task, dumps: Callable[..., str]) -> bytes:
    """Give the result, or what went wrong, as bytes; `dumps` was taken before user code could change it."""
    try:
        value = _call(task)
    except MemoryError as problem:
        return _error(dumps, task, problem, kind="memory_exceeded")
    except SystemExit as leaving:
        message = f"called sys.exit({leaving.code!r}) in place of returning from main"
        return _said(dumps, kind="user_error", message=message)
    except BaseException as problem:  # noqa: BLE001 - whatever user code raises is its answer
        return _error(dumps, task, problem, kind="user_error")
    try:
        text = _utf8(dumps(value, allow_nan=False, ensure_ascii=False))
    except MemoryError as problem:
        return _error(dumps, task, problem, kind="memory_exceeded")
    except Exception as problem:  # noqa: BLE001 - a user's __class__, __iter__ ... may raise anything
        return _said(dumps, kind="user_error", message=f"main returned what JSON can't carry: {problem}")
    if len(text) > task.max_result_bytes:
        return _said(dumps, kind="output_exceeded", message="", size=len(text))
    return VALUE + text


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a surrogate pair becomes U+FFFD, as everywhere in Flo
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def _call(task: Task) -> Any:
    module = types.ModuleType("__flo__")
    module.__file__ = task.filename
    sys.modules["__flo__"] = module
    linecache.cache[task.filename] = (len(task.source), None, task.source.splitlines(keepends=True), task.filename)
    exec(compile(task.source, task.filename, "exec", dont_inherit=True), module.__dict__)
    main = getattr(module, "main", None)
    if not callable(main):
        raise LookupError("the code defines no function main(**inputs)")
    value = main(**_taken(main, task.inputs or {}))
    if inspect.iscoroutine(value):
        import asyncio

        return asyncio.run(value)
    return value


def _taken(main: Callable[..., Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """Leave out what main does not name, as a JavaScript function does: a root gets its payload in two forms."""
    if isinstance(main, types.FunctionType) and not hasattr(main, "__wrapped__"):
        code = main.__code__  # what inspect would read, in a hundredth of its time
        if code.co_flags & inspect.CO_VARKEYWORDS:
            return inputs
        names = set(code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount])
        return {name: value for name, value in inputs.items() if name in names}
    try:
        parameters = inspect.signature(main).parameters.values()
    except (TypeError, ValueError):
        return inputs  # not a function of Python's own
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return inputs
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named_ones = {parameter.name for parameter in parameters if parameter.kind in named}
    return {name: value for name, value in inputs.items() if name in named_ones}


def _call_entry(task: Task) -> NoReturn:
    """Call a function of ours that the zygote imported; what it returns is the exit code."""
    module, _, name = task.entry.partition(":")
    code = 1
    try:
        code = getattr(importlib.import_module(module), name)(task.extra_fd, **(task.inputs or {})) or 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - the edge of a process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _error(dumps: Callable[..., str], task: Task, problem: BaseException, *, kind: str) -> bytes:
    """Tell an exception with the user's own part of the stack."""
    if isinstance(problem, SyntaxError) and problem.filename == task.filename:
        place = {"line": problem.lineno or 1, "column": problem.offset or 1}
        return _said(dumps, kind="syntax_error", message=problem.msg, **place)
    frames = [frame for frame in traceback.extract_tb(problem.__traceback__) if frame.filename != __file__]
    own = [frame for frame in frames if frame.filename == task.filename]
    stack = "".join(traceback.format_list(frames[-_STACK_LINES:]))
    text = "".join(traceback.format_exception_only(problem)).strip()
    place = {"line": own[-1].lineno or 1} if own else {}
    return _said(dumps, kind=kind, message=text, stack=f"{stack}{text}", **place)


def _said(dumps: Callable[..., str], **answer: Any) -> bytes:
    return ERROR + dumps(answer).encode()


def _open_streams() -> None:
    """Open the three streams anew: Python's own still speak to the zygote's /dev/null, in its encoding."""
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8", errors="replace")
    sys.stdout = _open_writer(1)
    sys.stderr = _open_writer(2)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{name}__", getattr(sys, name))


def _open_writer(fd: int) -> io.TextIOWrapper:
    binary = io.BufferedWriter(io.FileIO(fd, "w", closefd=False))
    return io.TextIOWrapper(binary, encoding="utf-8", errors="backslashreplace", line_buffering=True)
