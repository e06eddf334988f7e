"""What is asked of preparation and what comes of it: values only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

import orjson

from schemas.json import JSONObject
from schemas.outcome import ErrorKind, RunError

Language: TypeAlias = Literal["javascript", "typescript"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Source as the user wrote it, and the npm packages that it imports, each with one exact version."""

    source: str
    language: Language
    dependencies: tuple[tuple[str, str], ...] = ()

    def key(self, runtime: str) -> str:
        """Name what comes of it, where `runtime` says what it is made with."""
        parts = [runtime, self.language, self.source, sorted(self.dependencies)]
        return hashlib.sha256(orjson.dumps(parts)).hexdigest()


@dataclass(frozen=True, slots=True)
class Prepared:
    """One ES module that imports nothing, and the way back to the lines that the user wrote."""

    code: str
    #: JSON, https://tc39.es/ecma426/; read only when something goes wrong.
    source_map: str


class Lasts(StrEnum):
    """How long a flaw stays true."""

    #: As long as recipe and runtime are the same.
    ALWAYS = "always"
    #: Until somebody publishes what was missing.
    A_WHILE = "a_while"
    #: The next try may go well: a network is down, a disk full.
    NOT = "not"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """Why a recipe can't be prepared."""

    kind: ErrorKind
    message: str
    #: In the user's own source, both from 1.
    line: int | None = None
    column: int | None = None
    lasts: Lasts

    def error(self, filename: str) -> RunError:
        """Word it for the user whose code is called `filename`."""
        if self.line is None or self.column is None:
            return RunError(kind=self.kind, message=f"{filename}: {self.message}")
        place: JSONObject = {"line": self.line, "column": self.column}
        message = f"{filename}:{self.line}:{self.column}: {self.message}"
        return RunError(kind=self.kind, message=message, details=place)


Preparation: TypeAlias = Prepared | Flaw
