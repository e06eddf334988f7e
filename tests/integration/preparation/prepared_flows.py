"""Flows of one home whose code is prepared."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from schemas.catalog import load_catalog
from schemas.json import JSONValue
from schemas.outcome import Outcome
from schemas.settings import Settings
from schemas.validation import read_document
from workers.engine.drive import run_flow
from workers.engine.registry import HubRegistry
from workers.engine.sink import MemorySink
from workers.nodes.node import NodeTools

#: What tests install: small, old, without dependencies.
SMALL = {"ms": "2.1.3"}


class Flows:
    """Checks and runs flows of one home, as a server and its worker do."""

    def __init__(self, settings: Settings, tools: NodeTools) -> None:
        self._settings = settings
        self._tools = tools
        self.events = MemorySink()

    async def run(self, node_type: str, payload: JSONValue = None, **config: Any) -> Outcome:
        raw = {"name": "flow", "nodes": [{"id": "a", "node_type": node_type, "config": config}]}
        catalog = load_catalog(npm=self._settings.npm, hub=self._settings.hub)
        document, _ = read_document(raw, catalog=catalog, max_inline_http=timedelta(seconds=300))
        registry = HubRegistry(self._settings.hub)
        return await run_flow(document, payload, tools=self._tools, events=self.events, registry=registry)
