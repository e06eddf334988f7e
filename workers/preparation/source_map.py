"""Finds the way back from a line of built code to the line that the user wrote; pure.

The format is https://tc39.es/ecma426/: for each built line, segments of Base64 VLQ numbers, each relative to the last.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import orjson

from schemas.outcome import RunError

_DIGITS = {
    character: value
    for value, character in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
}
#: How the map names the user's own source, which has no file.
_OWN = "flo:code"

#: (built column, index of the source, line there, column there), all from 0
Segment: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Place:
    """Lines and columns from 1, as stacks count them."""

    #: None is the user's own source; else the path of a package's file.
    file: str | None
    line: int
    column: int


class SourceMap:
    """A source map, decoded once."""

    def __init__(self, text: str) -> None:
        """Raise ValueError when the text is no source map."""
        try:
            content = orjson.loads(text)
            self._sources = [str(name) for name in content["sources"]]
            self._lines = list(_decode(content["mappings"]))
        except (KeyError, TypeError, IndexError) as mistake:
            raise ValueError(f"not a source map: {mistake!r}") from None

    def place(self, line: int, column: int) -> Place | None:
        """Find what stands at a built line and column, both from 1; None where nothing of the user's does."""
        if not 1 <= line <= len(self._lines):
            return None
        segments = self._lines[line - 1]
        at = bisect_right(segments, column - 1, key=lambda segment: segment[0]) - 1
        if at < 0:
            return None
        _, source, first, second = segments[at]
        name = self._sources[source] if 0 <= source < len(self._sources) else _OWN
        return Place(None if name == _OWN else _short(name), first + 1, second + 1)

    def translate(self, text: str, filename: str) -> str:
        """Rewrite every `filename:line:column` in a text; what has no counterpart stays as it is."""

        def rewritten(found: re.Match[str]) -> str:
            place = self.place(int(found[1]), int(found[2]))
            return found[0] if place is None else f"{place.file or filename}:{place.line}:{place.column}"

        return re.sub(rf"{re.escape(filename)}:(\d{{1,9}}):(\d{{1,9}})", rewritten, text)


@lru_cache(maxsize=32)
def read_source_map(text: str) -> SourceMap:
    """Decode a source map, or find it decoded: that of a big package takes tens of milliseconds."""
    return SourceMap(text)


def _short(name: str) -> str:
    """Name a package's file by the package: `node_modules/ms/index.js` is `ms/index.js`."""
    return name.rpartition("node_modules/")[2]


def _decode(mappings: str) -> Iterator[list[Segment]]:
    source = line = column = 0
    for built_line in mappings.split(";"):
        built = 0
        segments: list[Segment] = []
        for text in filter(None, built_line.split(",")):
            numbers = _numbers(text)
            built += numbers[0]
            if len(numbers) >= 4:
                source, line, column = source + numbers[1], line + numbers[2], column + numbers[3]
                segments.append((built, source, line, column))
        yield segments


def _numbers(text: str) -> list[int]:
    numbers: list[int] = []
    value = shift = 0
    for character in text:
        digit = _DIGITS[character]
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            numbers.append(-(value >> 1) if value & 1 else value >> 1)
            value = shift = 0
    return numbers


def translated(error: RunError, source_map: SourceMap, filename: str, *, own_first: bool) -> RunError:
    """Rewrite an error of built code, so that its message, place and stack speak of the source as written.

    Of an error in a package, the place is where the user's own code called it, if `own_first`.
    """
    details = dict(error.details or {})
    line, column = details.get("line"), details.get("column")
    message = error.message
    if isinstance(line, int) and isinstance(column, int):
        message = message.removeprefix(f"{filename}:{line}:{column}: ")
        place = source_map.place(line, column)
        if isinstance(details.get("stack"), str):
            details["stack"] = source_map.translate(str(details["stack"]), filename)
            place = (_first_own(str(details["stack"]), filename) if own_first else None) or place
        if place is not None:
            details |= {"line": place.line, "column": place.column}
            message = f"{place.file or filename}:{place.line}:{place.column}: {message}"
    return error.model_copy(update={"message": message, "details": details})


def _first_own(stack: str, filename: str) -> Place | None:
    """Find the topmost line of a stack that is the user's own: where a package was called, if it is a package's."""
    found = re.search(rf"^    at .*?{re.escape(filename)}:(\d+):(\d+)", stack, re.MULTILINE)
    return Place(None, int(found[1]), int(found[2])) if found else None
