"""The shape of a flow: which node waits for which. Pure; building it takes time and room in O(nodes + connections)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    #: Of each node: the nodes that it feeds, each with the output ports that do so.
    after: tuple[Mapping[int, tuple[str, ...]], ...]
    #: Of each node: how many nodes feed it.
    waits_for: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.waits_for)

    def sources(self, node: int) -> frozenset[int]:
        """Give the nodes that feed one."""
        return frozenset(wire.source for wire in self.wires[node])


def graph_of(document: FlowDocument) -> Graph:
    """Read the shape off a document."""
    return build_graph([node.id for node in document.nodes], document.connections)


def build_graph(ids: Sequence[str], connections: Sequence[Connection]) -> Graph:
    place = {node_id: index for index, node_id in enumerate(ids)}
    wires: list[list[Wire]] = [[] for _ in ids]
    after: list[dict[int, tuple[str, ...]]] = [{} for _ in ids]
    waits_for = [0] * len(ids)
    for connection in connections:
        source, target = place[connection.from_node], place[connection.to_node]
        wires[target].append(Wire(source, connection.from_port, connection.to_port))
        if target not in after[source]:
            waits_for[target] += 1
        after[source][target] = (*after[source].get(target, ()), connection.from_port)
    return Graph(wires=tuple(map(tuple, wires)), after=tuple(after), waits_for=tuple(waits_for))
