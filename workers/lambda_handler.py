"""`workers.lambda_handler.handler`: Flo as a function, for the Python runtime that AWS provides (awslambdaric).

What it opens on its first invocation stays for the next ones that this instance gets.
"""

from __future__ import annotations

import threading
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from dispatch.telemetry.logs import configure_logs
from schemas.json import JSONObject
from schemas.settings import load_settings
from workers.loop import LoopThread
from workers.runner.awslambda.function import Function, open_function
from workers.runner.awslambda.words import call_from


class Context(Protocol):
    """What Lambda says of an invocation."""

    def get_remaining_time_in_millis(self) -> int: ...


class _Warm:
    """The function and its loop, which lives as long as the process."""

    def __init__(self) -> None:
        settings = load_settings()
        configure_logs(settings)
        self._loop = LoopThread("function")
        self._loop.start()
        self._opening: AbstractAsyncContextManager[Function] = open_function(settings)
        try:
            self._function = self._loop.call(self._opening.__aenter__())
        except BaseException:
            self._loop.stop()
            raise

    def answer(self, event: Any, context: Context) -> JSONObject:
        left = context.get_remaining_time_in_millis() / 1000
        return self._loop.call(self._function.answer(call_from(event), left=left))

    def close(self) -> None:
        self._loop.call(self._opening.__aexit__(None, None, None))
        self._loop.stop()


_opening = threading.Lock()
_warm: _Warm | None = None


def handler(event: Any, context: Context) -> JSONObject:
    """Execute an attempt. What Flo is missing is raised, with the fix, and Lambda passes it on to the worker."""
    return _instance().answer(event, context)


def _instance() -> _Warm:
    global _warm  # Lambda knows a module's function, and nothing that could carry this for it  # noqa: PLW0603
    with _opening:
        if _warm is None:
            _warm = _Warm()
        return _warm
