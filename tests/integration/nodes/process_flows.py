"""Flows of one node over a real place for commands and Python, through the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from schemas.catalog import load_catalog
from schemas.json import JSONValue
from schemas.outcome import Failed, Outcome, RunError, Succeeded
from schemas.run import EventType
from schemas.settings import ExecutionMode
from schemas.validation import read_document
from workers.engine.drive import run_flow
from workers.engine.sink import MemorySink
from workers.nodes.guarded import open_client
from workers.nodes.node import NodeTools
from workers.sandboxes.base import CodeOrder, CodeOutcome, OnLog
from workers.sandboxes.box.egress import NO_EGRESS, Egress
from workers.sandboxes.commands import CommandSandbox

MODE = ExecutionMode.SANDBOX_CODE_AND_PROCESS


class _NoCode:
    """These flows have no JavaScript."""

    async def run(self, order: CodeOrder, on_log: OnLog) -> CodeOutcome:
        raise NotImplementedError

    async def aclose(self) -> None:
        return


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    outcome: Outcome
    events: MemorySink

    @property
    def result(self) -> Any:
        assert isinstance(self.outcome, Succeeded), self.outcome
        return self.outcome.result

    @property
    def error(self) -> RunError:
        assert isinstance(self.outcome, Failed), self.outcome
        return self.outcome.error

    @property
    def logged(self) -> list[tuple[str, str]]:
        lines = [said.data for said in self.events.happenings if said.type is EventType.LOG]
        return [(str(line["level"]), str(line["message"])) for line in lines]


async def run_document(
    raw: object, place: CommandSandbox, payload: JSONValue = None, *, egress: Egress = NO_EGRESS
) -> Ran:
    """Check a document as a push does, and run it with the place as its box."""
    document, _ = read_document(raw, catalog=load_catalog(MODE), max_inline_http=timedelta(seconds=300))
    events = MemorySink()
    async with open_client(allow_private_network=False) as http:
        tools = NodeTools(code=_NoCode(), http=http, app="app", run_id="run", attempt=1, box=place, egress=egress)
        return Ran(outcome=await run_flow(document, payload, tools=tools, events=events), events=events)


async def run_node(
    place: CommandSandbox,
    node_type: str,
    config: Mapping[str, Any],
    payload: JSONValue = None,
    *,
    egress: Egress = NO_EGRESS,
) -> Ran:
    raw = {"name": "one", "nodes": [{"id": "it", "node_type": node_type, "config": dict(config)}]}
    return await run_document(raw, place, payload, egress=egress)
