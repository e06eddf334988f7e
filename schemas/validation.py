"""Reads a flow document: finds every mistake at once, each with its place and its fix, or gives the canonical form.

Here each part is read for itself; `meaning.py` and `wiring.py` then see whether the parts fit together.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from schemas.catalog import Catalog
from schemas.draft import Draft, read_part
from schemas.errors import Invalid, Problem
from schemas.flow import Connection, FlowDocument, Node
from schemas.half_pairs import half_pairs
from schemas.json import dumps
from schemas.meaning import check_meaning
from schemas.nodes.spec import PushLimits
from schemas.typed import is_typed_form, plain_config
from schemas.wording import short

#: Largest config of one node, in bytes of JSON; bigger data belongs in the payload or behind a URL.
MAX_CONFIG_BYTES: Final = 1024 * 1024
#: Most nodes in one flow.
MAX_NODES: Final = 50_000
#: Deepest nesting of arrays and objects in a document; JSON tools give up soon after.
MAX_DEPTH: Final = 100
#: Mistakes in one answer; who has more has one cause for all of them.
MAX_MISTAKES: Final = 500


def read_document(
    raw: object, *, catalog: Catalog, max_inline_http: timedelta
) -> tuple[FlowDocument, tuple[Problem, ...]]:
    """Check a document in Flo's or FlowEngine's form; give its canonical form, and notes on what was assumed.

    Raises Invalid with every problem at once. What this returns, dumped and read again, gives the same.
    """
    if not isinstance(raw, dict):
        given = f"given {short(raw)}" if _depth_within(raw, MAX_DEPTH) else "given something else"
        raise Invalid(
            [Problem(path="$", message=f"a flow document must be a JSON object; {given}")], what="flow document"
        )
    if not _depth_within(raw, MAX_DEPTH):
        raise Invalid([Problem(path="$", message=f"nested deeper than {MAX_DEPTH} levels")], what="flow document")
    if halves := half_pairs(raw):
        raise Invalid(halves, what="flow document")

    draft = Draft()
    raw = {key: value for key, value in raw.items() if key != "$schema"}  # for editors; says nothing about the flow
    document = _read_shapes(raw, draft)
    check_meaning(draft, catalog, PushLimits(max_inline_http=max_inline_http, npm=catalog.npm, solo=catalog.solo))

    notes = tuple(problem for problem in draft.problems if problem.severity == "note")
    mistakes = [problem for problem in draft.problems if problem.severity == "error"]
    if len(mistakes) > MAX_MISTAKES:
        more = Problem(path="$", message=f"and {len(mistakes) - MAX_MISTAKES} more mistakes")
        mistakes = [*mistakes[:MAX_MISTAKES], more]
    if mistakes or document is None:
        raise Invalid(mistakes, what="flow document")
    return document, notes


# Shapes: is each part of the document what it should be?


def _read_shapes(raw: dict[str, Any], draft: Draft) -> FlowDocument | None:
    typed = is_typed_form(raw)
    for index, item in enumerate(_items(raw, "nodes", draft)):
        _read_node(item, index, draft, typed=typed)
    for index, item in enumerate(_items(raw, "connections", draft)):
        connection = read_part(Connection, item, f"connections[{index}]", draft)
        if connection is not None:
            draft.connections[index] = connection
    if "nodes" in raw and raw["nodes"] == []:
        draft.wrong(
            "nodes", "the flow has no nodes", 'add one, e.g. {"id": "say", "node_type": "debug.log", "config": {}}'
        )
    _note_triggers(raw, draft)

    rest = {**raw, "nodes": (), "connections": ()} if "nodes" in raw else {**raw, "connections": ()}
    frame = read_part(FlowDocument, rest, "", draft)
    if frame is None:
        return None
    return frame.model_copy(
        update={"nodes": tuple(draft.nodes.values()), "connections": tuple(draft.connections.values())}
    )


def _items(raw: dict[str, Any], key: str, draft: Draft) -> Sequence[Any]:
    given = raw.get(key, [])
    if not isinstance(given, list | tuple):
        draft.wrong(key, f"must be an array; given {short(given)}")
        return []
    if len(given) > MAX_NODES and key == "nodes":
        draft.wrong(key, f"{len(given)} nodes, but a flow may have at most {MAX_NODES}", "split it into several flows")
        return []
    return given


def _read_node(item: Any, index: int, draft: Draft, *, typed: bool) -> None:
    path = f"nodes[{index}]"
    if not isinstance(item, dict):
        draft.wrong(path, f"must be an object; given {short(item)}")
        return
    if isinstance(item.get("id"), str):
        draft.ids.append(item["id"])
    config = item.get("config")
    if isinstance(config, dict):
        size = len(dumps(config).encode())
        if size > MAX_CONFIG_BYTES:
            draft.wrong(
                f"{path}.config",
                f"the config is {size:,} bytes, but at most {MAX_CONFIG_BYTES:,} are allowed",
                "pass big data in the payload, or fetch it by http.request",
            )
            return
        if typed:
            before = len(draft.problems)
            item = {**item, "config": plain_config(config, path=f"{path}.config", problems=draft.problems)}
            if len(draft.problems) > before:
                return
    policy = item.get("retry_policy")
    if isinstance(policy, dict) and "retry_on_timeout" not in policy:
        draft.note(f"{path}.retry_policy", "retry_on_timeout missing: taken as false")
    node = read_part(Node, item, path, draft)
    if node is not None:
        draft.nodes[index] = node


def _note_triggers(raw: dict[str, Any], draft: Draft) -> None:
    triggers = raw.get("triggers")
    for index, trigger in enumerate(triggers if isinstance(triggers, list | tuple) else ()):
        match trigger:
            case {"trigger_type": {"type": "Cron" | "Webhook" | "Event" as kind}} if trigger.get("enabled", True):
                draft.note(
                    f"triggers[{index}]",
                    f"a {kind} trigger is kept but does not start the flow",
                    "create an event: PUT /api/v1/apps/{app}/events/{event}",
                )


def _depth_within(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for item in level
            if isinstance(item, dict | list | tuple)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return True
    return False
