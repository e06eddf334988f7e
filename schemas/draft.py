"""What could be read of a document so far, with places, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from schemas.errors import Problem
from schemas.flow import Connection, Node
from schemas.wording import did_you_mean, problems_of

#: Suggestions in one answer; each costs a comparison with every known word.
MAX_SUGGESTIONS: Final = 50

P = TypeVar("P", bound=BaseModel)


@dataclass(slots=True)
class Draft:
    """What could be read of a document, with places, and what could not."""

    problems: list[Problem] = field(default_factory=list)
    nodes: dict[int, Node] = field(default_factory=dict)
    connections: dict[int, Connection] = field(default_factory=dict)
    #: Every id that some node claims, also nodes that are otherwise wrong.
    ids: list[str] = field(default_factory=list)
    #: How often this flow itself may run at the same time, when it stands inside a node.
    at_once: int = 1
    #: This flow stands inside a node: its parts have no checkpoint of their own, so nothing in it can be parked.
    inside: bool = False

    suggestions: int = 0

    def suggest(self, given: str, known: Sequence[str]) -> str:
        """Name the known word that was probably meant, as long as looking for it stays cheap."""
        self.suggestions += 1
        return did_you_mean(given, known) if self.suggestions <= MAX_SUGGESTIONS and len(known) <= 1000 else ""

    def note(self, path: str, message: str, fix: str = "") -> None:
        self.problems.append(Problem(path=path, message=message, fix=fix, severity="note"))

    def wrong(self, path: str, message: str, fix: str = "") -> None:
        self.problems.append(Problem(path=path, message=message, fix=fix))


def read_part(model: type[P], item: Any, path: str, draft: Draft) -> P | None:
    """Read one part of the document; what is wrong with it goes into the draft."""
    try:
        return model.model_validate(item)
    except ValidationError as mistakes:
        draft.problems.extend(problems_of(mistakes, path=path, model=model))
        return None
