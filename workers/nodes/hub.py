"""hub.<package>@<version>: a node that came as an npm package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import assert_never

from schemas.json import JSONValue
from schemas.nodes.hub import CODE, SOURCE_MAP, HubConfig
from schemas.outcome import ErrorKind
from workers.nodes.code import run_prepared
from workers.nodes.node import NodeCall, NodeError, node_error
from workers.preparation.recipe import Prepared
from workers.sandboxes.base import CodeFailed, CodeOrder, CodeReturned


class HubNode:
    """Run an installed package in a V8 isolate and give what it returned, an object of its output ports."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._folder = folder
        self._prepared: Prepared | None = None

    async def run(self, call: NodeCall[HubConfig]) -> Mapping[str, JSONValue]:
        if self._prepared is None:
            self._prepared = self._read()
        order = CodeOrder(
            source=self._prepared.code,
            inputs={"inputs": dict(call.inputs), "config": call.config.own()},
            app=call.tools.app,
            timeout=call.config.wall_clock,
            memory_mb=call.config.memory_mb,
            max_output_bytes=call.config.max_output_bytes,
            filename=f"{self._name}.js",
        )
        outcome = await run_prepared(order, self._prepared, call, own_first=False)
        match outcome:
            case CodeReturned(value=dict() as outputs):
                return outputs
            case CodeReturned():
                raise node_error(ErrorKind.USER, f"{self._name} must return an object of its output ports, and did not")
            case CodeFailed():
                raise NodeError(outcome.error)
            case _:
                assert_never(outcome)

    def _read(self) -> Prepared:
        try:
            code, source_map = (self._folder / CODE).read_text(), (self._folder / SOURCE_MAP).read_text()
        except OSError as trouble:
            message = f"{self._name} can't be read ({trouble.strerror}); install it again with `flo hub install`"
            raise node_error(ErrorKind.INTERNAL, message) from None
        return Prepared(code=code, source_map=source_map)
