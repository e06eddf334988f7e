"""Which of a run's work another one takes over that begins at a chosen node. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.errors import Invalid, Problem
from schemas.flow import FlowDocument
from schemas.run import EventType, Happening
from schemas.wording import listed


def taken_over(document: FlowDocument, happenings: Iterable[Happening], *, from_node: str) -> tuple[Happening, ...]:
    """Give the completions of all nodes that the chosen one does not feed, itself left out.

    Raises Invalid when the flow has no such node.
    """
    ids = [node.id for node in document.nodes]
    if from_node not in ids:
        message = f'flow "{document.name}" has no node "{from_node}"; it has: {listed(ids)}'
        raise Invalid([Problem(path="from_node", message=message)], what="request body")
    again = _downstream(document, from_node)
    completed = {
        said.node_id: said
        for said in happenings
        if said.type is EventType.NODE_COMPLETED and said.node_id not in again and said.node_id in ids
    }
    return tuple(_of_first_round(said) for said in completed.values())


def _downstream(document: FlowDocument, node_id: str) -> set[str]:
    """Name a node, and all that hangs on it."""
    after: dict[str, list[str]] = {}
    for wire in document.connections:
        after.setdefault(wire.from_node, []).append(wire.to_node)
    found, todo = {node_id}, [node_id]
    while todo:
        for dependent in after.get(todo.pop(), ()):
            if dependent not in found:
                found.add(dependent)
                todo.append(dependent)
    return found


def _of_first_round(said: Happening) -> Happening:
    """Word a completion for a run that begins its rounds anew; it tells that the work was done before."""
    data = {key: value for key, value in said.data.items() if key != "round"}
    return Happening(said.type, {**data, "taken_over": True}, said.node_id, said.time)
