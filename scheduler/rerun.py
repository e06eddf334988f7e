"""Which of a run's work another one takes over that begins at a chosen node. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Set

from schemas.errors import Invalid, Problem
from schemas.flow import FlowDocument
from schemas.nodes.wait import WAIT_URL
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
    again = _done_again(document, from_node)
    completed = {
        said.node_id: said
        for said in happenings
        if said.type is EventType.NODE_COMPLETED and said.node_id not in again and said.node_id in ids
    }
    return tuple(_of_first_round(said) for said in completed.values())


def _done_again(document: FlowDocument, from_node: str) -> set[str]:
    """Name a node and all that hangs on it, and the waitpoints that these need: one of another run is of no use."""
    urls = {node.id for node in document.nodes if node.node_type == WAIT_URL.type}
    again = _downstream(document, {from_node})
    while needed := {wire.from_node for wire in document.connections if wire.to_node in again} & urls - again:
        again |= _downstream(document, needed)
    return again


def _downstream(document: FlowDocument, nodes: Set[str]) -> set[str]:
    """Name these nodes, and all that hangs on them."""
    after: dict[str, list[str]] = {}
    for wire in document.connections:
        after.setdefault(wire.from_node, []).append(wire.to_node)
    found, todo = set(nodes), list(nodes)
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
