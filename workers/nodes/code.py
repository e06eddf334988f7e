"""code.javascript: a user's function in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from schemas.json import JSONValue
from schemas.nodes.code import CodeConfig
from workers.nodes.node import NodeCall, NodeError
from workers.sandboxes.base import CodeFailed, CodeOrder, CodeReturned


class JavaScript:
    """Run the code and give what it returned as `output`, and each key of a returned object as a port of its own."""

    async def run(self, call: NodeCall[CodeConfig]) -> Mapping[str, JSONValue]:
        order = CodeOrder(
            source=call.config.code,
            inputs=call.inputs,
            app=call.tools.app,
            timeout=call.config.wall_clock,
            memory_mb=call.config.memory_mb,
            max_output_bytes=call.config.max_output_bytes,
            filename=f"{call.node_id}.js",
        )
        outcome = await call.tools.code.run(order, call.log)
        match outcome:
            case CodeReturned():
                value = outcome.value
                return {**value, "output": value} if isinstance(value, dict) else {"output": value}
            case CodeFailed():
                raise NodeError(outcome.error)
            case _:
                assert_never(outcome)
