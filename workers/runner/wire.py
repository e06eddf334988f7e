"""What a worker and a runner elsewhere say to each other: JSON objects, one to a line, both ways.

worker to runner:
    {"do": "know", "key", "document"}                 a flow document, for runs that name its key
    {"do": "run", "run", "key", "order"}              `run` is the worker's number for it
    {"do": "cancel", "run"}
    {"do": "answer", "ask", "value"}                  to what was asked
    {"do": "output", "ask", "stream", "line"}         of a command that was asked for, base64
    {"do": "told", "ask", "type", "data"}             of a node that was asked for, to be told as the run's own words;
                                                      without a type: say (`solo_saved`) when those before are durable
runner to worker:
    {"say": "ready"}                                  first of all
    {"say": "events", "run", "events"}                what has happened: [{"type", "data", "node_id", "time"}, ...]
    {"say": "ask", "ask", "run", "what", "order"}     `what`: flush, prepare, command, python, shared, node, hook,
                                                      solo, solo_saved
    {"say": "drop", "ask"}                            nobody waits for the answer any more
    {"say": "done", "run", "events", "outcome"}       last of a run, with what has happened since

The worker believes nothing that it hears: a runner holds other people's code. This module is the words; no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, assert_never

from schemas.json import JSONObject
from schemas.outcome_words import milliseconds as milliseconds  # noqa: PLC0414 - words of this wire, too
from schemas.outcome_words import outcome_from as outcome_from  # noqa: PLC0414
from schemas.outcome_words import outcome_to as outcome_to  # noqa: PLC0414
from schemas.run import EventType, Happening
from workers.preparation.recipe import Flaw, Lasts, Preparation, Prepared, Recipe

#: What a runner may tell of a run; its beginning and its end are the dispatcher's to tell.
TOLD = frozenset(
    {
        EventType.NODE_STARTED, EventType.NODE_COMPLETED, EventType.NODE_FAILED, EventType.NODE_RETRYING,
        EventType.LOG, EventType.PROGRESS, EventType.DATA,
    }
)  # fmt: skip

Said = Mapping[str, Any]


def happening_to(said: Happening) -> JSONObject:
    return {"type": said.type.value, "data": said.data, "node_id": said.node_id, "time": said.time.timestamp()}


def happening_from(said: Said) -> Happening:
    data, node_id = said["data"], said["node_id"]
    if not isinstance(data, dict) or not isinstance(node_id, str | None):
        raise TypeError("an event needs an object as data, and a node's id or none")
    return Happening(EventType(said["type"]), data, node_id, datetime.fromtimestamp(float(said["time"]), UTC))


def recipe_to(recipe: Recipe) -> JSONObject:
    return {
        "source": recipe.source,
        "language": recipe.language,
        "dependencies": [list(one) for one in recipe.dependencies],
    }


def recipe_from(said: Said) -> Recipe:
    if said["language"] not in ("javascript", "typescript"):
        raise ValueError("not a language")
    dependencies = tuple((str(name), str(version)) for name, version in said["dependencies"])
    return Recipe(str(said["source"]), said["language"], dependencies)


def preparation_to(preparation: Preparation) -> JSONObject:
    match preparation:
        case Prepared():
            return {"is": "prepared", "code": preparation.code, "source_map": preparation.source_map}
        case Flaw():
            return {"is": "flaw", **asdict(preparation)}
        case _:
            assert_never(preparation)


def preparation_from(said: Said) -> Preparation:
    if said["is"] == "prepared":
        return Prepared(code=said["code"], source_map=said["source_map"])
    return Flaw(
        kind=said["kind"],
        message=said["message"],
        line=said["line"],
        column=said["column"],
        lasts=Lasts(said["lasts"]),
    )
