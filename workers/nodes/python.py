"""code.python: a user's main(**inputs), in a box of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from schemas.errors import Refused
from schemas.json import JSONValue
from schemas.nodes.python import PythonConfig
from schemas.outcome import ErrorKind
from workers.nodes.boxed import OutputLog, limits_of, stopped
from workers.nodes.node import NodeCall, node_error
from workers.sandboxes.box.base import PythonOrder, Returned, Stopped


class Python:
    """Call main and give what it returned as `output`, and each key of a returned dict as a port of its own."""

    async def run(self, call: NodeCall[PythonConfig]) -> Mapping[str, JSONValue]:
        order = PythonOrder(
            source=call.config.code,
            inputs=call.inputs,
            app=call.tools.app,
            limits=limits_of(call.config),
            filename=f"{call.node_id}.py",
            env=call.config.env,
            egress=call.tools.egress,
        )
        try:
            outcome = await call.tools.box.run_python(order, OutputLog(call))
        except Refused as refused:
            raise node_error(ErrorKind.INVALID_INPUT, str(refused)) from None
        match outcome:
            case Returned(value=value):
                return {**value, "output": value} if isinstance(value, dict) else {"output": value}
            case Stopped():
                raise stopped(outcome, call)
            case _:
                assert_never(outcome)
