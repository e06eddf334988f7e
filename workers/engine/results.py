"""The result cache: what a node gave, kept for those who ask the same again. Opt-in, per node, never shared by apps."""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import orjson

from schemas.json import JSONObject, JSONValue, to_bytes

#: Room for the results that one worker keeps, in bytes of JSON, and the largest that it keeps at all.
MOST_BYTES = 64 * 1024 * 1024
LARGEST = 1024 * 1024


def fingerprint(node_type: str, config: JSONObject, asked: JSONValue) -> str:
    """Tell questions that are the same from those that aren't: sha256 over canonical JSON, keys sorted."""
    return hashlib.sha256(_canonical([node_type, config, asked])).hexdigest()


def _canonical(value: Any) -> bytes:
    return to_bytes(value, option=orjson.OPT_SORT_KEYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a result is the answer to."""

    app: str
    node_type: str
    fingerprint: str


class ResultCache(Protocol):
    """Where results are kept."""

    async def get(self, question: Question) -> Mapping[str, JSONValue] | None:
        """Give the outputs, if they are known and still fresh."""
        ...

    async def put(self, question: Question, outputs: Mapping[str, JSONValue], ttl: timedelta) -> None:
        """Keep the outputs for so long, or not at all when they are too big."""
        ...

    async def forget(self, *, app: str | None = None, node_type: str | None = None) -> int:
        """Drop what was kept of this app, of this node type, or of both; answer how many results that was."""
        ...


class MemoryResults:
    """Keeps results in one process, as JSON text, so that no run can change what another one gets."""

    def __init__(self, *, most_bytes: int = MOST_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_bytes = most_bytes
        self._clock = clock
        self._kept: OrderedDict[Question, tuple[bytes, float]] = OrderedDict()
        self._bytes = 0

    async def get(self, question: Question) -> Mapping[str, JSONValue] | None:
        found = self._kept.get(question)
        if found is None:
            return None
        text, until = found
        if until <= self._clock():
            self._drop(question)
            return None
        self._kept.move_to_end(question)
        outputs: Mapping[str, JSONValue] = json.loads(text)  # the only reader that keeps integers of any size
        return outputs

    async def put(self, question: Question, outputs: Mapping[str, JSONValue], ttl: timedelta) -> None:
        text = _canonical(dict(outputs))
        if len(text) > LARGEST:
            return
        self._drop(question)
        self._kept[question] = (text, self._clock() + ttl.total_seconds())
        self._bytes += len(text)
        while self._bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))

    async def forget(self, *, app: str | None = None, node_type: str | None = None) -> int:
        gone = [
            question
            for question in self._kept
            if app in (None, question.app) and node_type in (None, question.node_type)
        ]
        for question in gone:
            self._drop(question)
        return len(gone)

    def _drop(self, question: Question) -> None:
        text, _ = self._kept.pop(question, (b"", 0.0))
        self._bytes -= len(text)
