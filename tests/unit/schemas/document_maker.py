"""Short ways to write documents in tests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from schemas.catalog import load_catalog
from schemas.errors import Invalid, Problem
from schemas.flow import FlowDocument
from schemas.validation import read_document

CAP = timedelta(seconds=300)


def node(node_id: str, node_type: str = "debug.log", **more: Any) -> dict[str, Any]:
    return {"id": node_id, "node_type": node_type, "config": {}, **more}


def code(node_id: str, **config: Any) -> dict[str, Any]:
    return node(node_id, "code.javascript", config={"code": "export default () => 1", **config})


def wire(start: str, end: str) -> dict[str, Any]:
    """`wire("a.text", "b.message")`; ids in tests have no dots."""
    (source, from_port), (target, to_port) = start.split("."), end.split(".")
    return {"from_node": source, "from_port": from_port, "to_node": target, "to_port": to_port}


def flow(*nodes: Any, wires: tuple[Any, ...] = (), **more: Any) -> dict[str, Any]:
    return {"name": "flow", "nodes": list(nodes), "connections": list(wires), **more}


def read(raw: object) -> tuple[FlowDocument, tuple[Problem, ...]]:
    return read_document(raw, catalog=load_catalog(), max_inline_http=CAP)


def mistakes_in(raw: object) -> dict[str, str]:
    """Read a document that must be wrong; give `{path: message + fix}`."""
    try:
        read(raw)
    except Invalid as invalid:
        return {problem.path: f"{problem.message} | {problem.fix}" for problem in invalid.problems}
    raise AssertionError("the document was accepted")
