"""The shape of a flow: which node waits for which. Pure; building it takes time and room in O(nodes + connections)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.flow import Connection, FlowDocument


@dataclass(frozen=True, slots=True)
class Wire:
    """An input port of some node, fed by a port of `source`."""

    source: int
    from_port: str
    to_port: str


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes by their place in the document. Assumes an acyclic document, as `read_document` makes sure."""

    #: Of each node: the wires that feed it.
    wires: tuple[tuple[Wire, ...], ...]
    #: Of each node: the nodes that it feeds, each once.
    after: tuple[tuple[int, ...], ...]
    #: Of each node: how many nodes feed it.
    waits_for: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.waits_for)

    @property
    def leaves(self) -> list[int]:
        return [node for node, after in enumerate(self.after) if not after]


def graph_of(document: FlowDocument) -> Graph:
    """Read the shape off a document."""
    return build_graph([node.id for node in document.nodes], document.connections)


def build_graph(ids: Sequence[str], connections: Sequence[Connection]) -> Graph:
    place = {node_id: index for index, node_id in enumerate(ids)}
    wires: list[list[Wire]] = [[] for _ in ids]
    after: list[dict[int, None]] = [{} for _ in ids]
    waits_for = [0] * len(ids)
    for connection in connections:
        source, target = place[connection.from_node], place[connection.to_node]
        wires[target].append(Wire(source, connection.from_port, connection.to_port))
        if target not in after[source]:
            after[source][target] = None
            waits_for[target] += 1
    return Graph(wires=tuple(map(tuple, wires)), after=tuple(map(tuple, after)), waits_for=tuple(waits_for))
