"""What the author of a node type runs to know that it keeps what the engine counts on.

    from workers.testing import NodeContract

    class TestShout(NodeContract):
        node = Shout
        inputs = {"text": "hello"}

pytest finds the class by its name. It needs no server, and no Flo but this package.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar

from schemas.catalog import Catalog
from schemas.flow import FlowDocument
from schemas.json import JSONObject, JSONValue, dumps, loads
from schemas.nodes.spec import NodeType
from schemas.outcome import ErrorKind, Failed, Outcome, RunError, Succeeded
from schemas.run import EventType, Happening
from schemas.settings import ExecutionMode
from schemas.validation import read_document
from workers.engine.drive import run_flow
from workers.engine.ports import ACCEPTED, json_type
from workers.engine.registry import BUILT_IN, Registered
from workers.engine.sink import MemorySink
from workers.nodes.guarded import open_client
from workers.nodes.node import NodeTools
from workers.sandboxes.base import CodeFailed, CodeOrder, CodeOutcome, OnLog


class NodeContract:
    """The suite: give it the class, inputs that it works with, and its config where the example does not do."""

    node: ClassVar[type[Any]]
    inputs: ClassVar[JSONObject] = {}
    config: ClassVar[JSONObject | None] = None

    def tools(self) -> NodeTools:
        """Make what the node may use; override it for a node that needs a real code sandbox."""
        return NodeTools(
            code=NoCode(), http=open_client(allow_private_network=True), app="test", run_id="run_test", attempt=1
        )

    def test_its_description_is_whole(self) -> None:
        spec = self._spec()
        assert spec.description.endswith("."), "describe the node type in a sentence"
        assert all(port.description for port in (*spec.inputs, *spec.outputs)), "describe every port"
        assert dumps(spec.as_json()), "everything about it can be shown as JSON"

    def test_its_example_is_a_valid_config(self) -> None:
        assert self._spec().config.model_validate(self._spec().example) is not None

    def test_it_works(self) -> None:
        assert isinstance(self._run(), Succeeded)

    def test_what_it_gives_is_json_and_fits_its_output_ports(self) -> None:
        spec, given = self._spec(), self._outputs()
        assert loads(dumps(given)) == given, "outputs must be JSON: no sets, tuples, dates or NaN"
        for name, value in given.items():
            port = spec.output(name)
            assert port or spec.open_outputs, f'"{name}" is no output port; declare it, or set open_outputs'
            assert not port or port.type == "any" or json_type(value) in ACCEPTED[port.type], (
                f"{name} is no {port.type}"
            )

    def test_a_required_input_that_is_missing_is_named(self) -> None:
        for port in self._spec().inputs:
            if port.required:
                outcome = self._run(inputs={key: value for key, value in self.inputs.items() if key != port.name})
                assert isinstance(outcome, Failed) and outcome.error.kind is ErrorKind.INVALID_INPUT
                assert port.name in outcome.error.message

    def test_one_object_serves_many_runs_at_once(self) -> None:
        outcomes = asyncio.run(self._run_at_once(5))
        assert [isinstance(outcome, Succeeded) for outcome in outcomes] == [True] * 5, "keep nothing between calls"

    def test_it_stops_when_it_is_cancelled(self) -> None:
        assert asyncio.run(self._cancel()), "let CancelledError pass, and clean up in `finally`"

    # How the tests run it

    def _spec(self) -> NodeType:
        spec = self.node.spec
        assert isinstance(spec, NodeType), "`spec` must be a NodeType"
        return spec

    def _document(self) -> FlowDocument:
        config = self._spec().example if self.config is None else self.config
        catalog = Catalog([*_BUILT_IN_TYPES, self._spec()], mode=ExecutionMode.UNSANDBOXED)
        raw = {"name": "contract", "nodes": [{"id": "node", "node_type": self._spec().type, "config": config}]}
        return read_document(raw, catalog=catalog, max_inline_http=timedelta(minutes=5))[0]

    async def _start(self, work: Any, inputs: JSONObject, events: MemorySink) -> Outcome:
        registry = {**BUILT_IN, self._spec().type: Registered(self._spec(), work)}
        return await run_flow(self._document(), inputs, tools=self.tools(), events=events, registry=registry)

    def _run(self, inputs: JSONObject | None = None) -> Outcome:
        return asyncio.run(self._start(self.node(), self.inputs if inputs is None else inputs, MemorySink()))

    def _outputs(self) -> Mapping[str, JSONValue]:
        events = MemorySink()
        asyncio.run(self._start(self.node(), self.inputs, events))
        outputs = events.happenings[-1].data.get("outputs")
        assert isinstance(outputs, dict), f"it did not succeed: {events.happenings[-1].data}"
        return outputs

    async def _run_at_once(self, times: int) -> list[Outcome]:
        work = self.node()
        return await asyncio.gather(*(self._start(work, self.inputs, MemorySink()) for _ in range(times)))

    async def _cancel(self) -> bool:
        """Cancel it as soon as it has started; true when it stopped, or had ended by then."""
        events = _Listening()
        running = asyncio.create_task(self._start(self.node(), self.inputs, events))
        await events.heard.wait()
        running.cancel()
        await asyncio.wait([running], timeout=10)
        return running.done() and events.happenings[-1].type in (EventType.NODE_COMPLETED, EventType.NODE_FAILED)


_BUILT_IN_TYPES = [known.type for known in BUILT_IN.values()]


class _Listening(MemorySink):
    """Tells when something has happened."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = asyncio.Event()

    def emit(self, happening: Happening) -> None:
        super().emit(happening)
        self.heard.set()


class NoCode:
    """A code sandbox that says what to do about it."""

    async def run(self, order: CodeOrder, on_log: OnLog) -> CodeOutcome:
        message = "NodeContract has no code sandbox; override `tools` to give your node one"
        return CodeFailed(RunError(kind=ErrorKind.INTERNAL, message=message))

    async def aclose(self) -> None:
        return
