"""debug.log: show a value in the run's log."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.json import JSONValue, dumps
from schemas.nodes.debug import LogConfig
from workers.nodes.node import NodeCall


class DebugLog:
    async def run(self, call: NodeCall[LogConfig]) -> Mapping[str, JSONValue]:
        if "message" not in call.inputs:
            call.log(call.config.level, "(no message)")
            return {}
        message = call.inputs["message"]
        call.log(call.config.level, message if isinstance(message, str) else dumps(message))
        return {"message": message}
