"""Whole flows with real V8 isolates and a real HTTP server: the examples, and FlowEngine's own document."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from loopback_site import Site

from schemas.catalog import load_catalog
from schemas.fold import nodes_from
from schemas.json import JSONValue
from schemas.outcome import ErrorKind, Failed, Outcome, Succeeded
from schemas.run import EventType
from schemas.validation import read_document
from workers.engine.drive import run_flow
from workers.engine.sink import MemorySink
from workers.nodes.guarded import open_client
from workers.nodes.node import NodeTools
from workers.sandboxes.v8 import V8Pool

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[3]
HOG = "export default () => { const a = []; for (;;) a.push(new Array(1e5).fill(1)) }"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tools(v8: V8Pool) -> AsyncIterator[NodeTools]:
    async with open_client(allow_private_network=True) as http:
        yield NodeTools(code=v8, http=http, app="app", run_id="run", attempt=1)


async def run(raw: Any, payload: JSONValue, tools: NodeTools, events: MemorySink | None = None) -> Outcome:
    document, _ = read_document(raw, catalog=load_catalog(), max_inline_http=timedelta(seconds=300))
    return await run_flow(document, payload, tools=tools, events=events or MemorySink())


def example(name: str) -> Any:
    return json.loads((ROOT / "examples" / f"{name}.json").read_text())


def code(source: str, **config: Any) -> dict[str, Any]:
    return {"name": "x", "nodes": [{"id": "a", "node_type": "code.javascript", "config": {"code": source, **config}}]}


async def test_the_hello_example_greets(tools: NodeTools) -> None:
    assert await run(example("hello"), {"name": "bo"}, tools) == Succeeded(result={"message": "hello bo"})


async def test_the_parallel_example_adds_and_logs(tools: NodeTools) -> None:
    events = MemorySink()

    assert await run(example("parallel_sum"), {"numbers": [1, 2]}, tools, events) == Succeeded(result=11)
    assert [said.data for said in events.happenings if said.type is EventType.LOG] == [
        {"level": "info", "message": "adding 4 numbers"}
    ]


async def test_the_api_example_tries_again_until_the_server_answers(tools: NodeTools, site: Site) -> None:
    events = MemorySink()

    outcome = await run(example("call_api"), {"url": f"{site.url}/flaky/3"}, tools, events)

    assert outcome == Succeeded(result=["a", "b"])
    assert [said.type for said in events.happenings].count(EventType.NODE_RETRYING) == 2


async def test_flowengines_data_pipeline_runs_as_it_is(tools: NodeTools, site: Site) -> None:
    raw = json.loads((ROOT / "tests" / "data" / "flowengine" / "data_pipeline.json").read_text())
    document, _ = read_document(raw, catalog=load_catalog(), max_inline_http=timedelta(seconds=300))
    events = MemorySink()

    outcome = await run_flow(document, {"url": f"{site.url}/json/"}, tools=tools, events=events)

    assert outcome == Succeeded(result={"message": '{\n  "id": 1,\n  "name": "one"\n}'})
    assert [view.status for view in nodes_from(document, events.happenings)] == ["succeeded"] * 5


async def test_code_may_be_async_and_gets_json_only(tools: NodeTools) -> None:
    source = "export default async ({payload}) => ({type: typeof payload, size: payload.length})"

    outcome = await run(code(source), [1, 2], tools)

    assert outcome == Succeeded(result={"output": {"type": "object", "size": 2}, "type": "object", "size": 2})


@pytest.mark.parametrize(
    ("source", "config", "kind"),
    [
        ("export default () => {", {}, ErrorKind.SYNTAX),
        ("export default () => { throw new Error('no') }", {}, ErrorKind.USER),
        ("export default () => { for (;;) {} }", {"timeout_ms": 50}, ErrorKind.TIMED_OUT),
        (HOG, {"memory_mb": 16}, ErrorKind.MEMORY_EXCEEDED),
        ("export default () => 'x'.repeat(1000)", {"max_output_bytes": 100}, ErrorKind.OUTPUT_EXCEEDED),
    ],
)  # fmt: skip
async def test_code_that_goes_wrong_fails_its_node_with_the_right_kind(
    tools: NodeTools, source: str, config: dict[str, Any], kind: ErrorKind
) -> None:
    outcome = await run(code(source, **config), None, tools)

    assert isinstance(outcome, Failed)
    assert (outcome.error.kind, outcome.error.node_id) == (kind, "a")
