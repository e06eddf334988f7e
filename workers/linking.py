"""Puts the documents of flows that are called inline into the documents that call them, before a run is executed.

So whatever executes the run, a box with no way out or a program elsewhere, has all that it needs, and the mode's rules
hold for what is called as for what calls.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from schemas.errors import Invalid, NotFound
from schemas.flow import FlowDocument, Node
from schemas.json import JSONObject, JSONValue
from schemas.nodes.call import FLOW_CALL_TYPE
from schemas.parking import first_to_park

#: Flows that may call one another in a row.
DEEPEST = 10
#: Documents that one run may be made of.
MOST = 200

#: Node types whose config may hold, or lead to, other flows.
HOLDERS = frozenset({FLOW_CALL_TYPE, "flow.map", "flow.race"})


class Library(Protocol):
    """Finds flow versions; see `workers.dispatcher.Documents`."""

    async def read(self, app: str, flow: str, version: int) -> FlowDocument:
        """Raises NotFound or Invalid."""
        ...

    async def newest(self, app: str, flow: str) -> int:
        """Give a flow's newest version. Raises NotFound, also for a retired flow."""
        ...


async def link(document: FlowDocument, library: Library, *, app: str, flow: str) -> FlowDocument:
    """Give the document with all that it calls inline; a call that can't be linked says why, and fails when reached."""
    if not any(node.node_type in HOLDERS for node in document.nodes):
        return document
    return await _Linking(library, app).document(document, (flow,))


class _Linking:
    def __init__(self, library: Library, app: str) -> None:
        self._library = library
        self._app = app
        self._linked = 0

    async def document(self, document: FlowDocument, path: tuple[str, ...]) -> FlowDocument:
        nodes = [await self._node(node, path) for node in document.nodes]
        return document.model_copy(update={"nodes": tuple(nodes)})

    async def _node(self, node: Node, path: tuple[str, ...]) -> Node:
        if node.node_type not in HOLDERS:
            return node
        said = await self._value({"node_type": node.node_type, "config": node.config}, path)
        return node.model_copy(update={"config": cast(JSONObject, said)["config"]})

    async def _value(self, value: JSONValue, path: tuple[str, ...]) -> JSONValue:
        """Link the calls in the flows that stand inside a config, however deep."""
        match value:
            case {"node_type": "flow.call", "config": dict() as config} if config.get("mode", "inline") == "inline":
                return {**cast(JSONObject, value), "config": {**config, **await self._called(config, path)}}
            case dict():
                return {key: await self._value(item, path) for key, item in value.items()}
            case list() | tuple():
                return [await self._value(item, path) for item in value]
        return value

    async def _called(self, config: JSONObject, path: tuple[str, ...]) -> JSONObject:
        flow, version = str(config["flow"]), cast(Any, config.get("version"))
        way = " > ".join([*path, flow])
        if len(path) >= DEEPEST:
            return {"unlinked": f"more than {DEEPEST} flows call one another in a row ({way}); does one call itself?"}
        self._linked += 1
        if self._linked > MOST:
            return {"unlinked": f'one run may be made of at most {MOST} flows; set mode: "run" for some of the calls'}
        try:
            if version is None:
                version = await self._library.newest(self._app, flow)
            found = await self._library.read(self._app, flow, version)
        except (NotFound, Invalid) as problem:
            return {"unlinked": str(problem)}
        if waiting := first_to_park(found):
            return {"unlinked": f'its {waiting} parks its run; set mode: "run" to wait for it'}
        linked = await self.document(found, (*path, flow))
        return {"document": linked.model_dump(mode="json", exclude_none=True)}
