"""debug.log: show a value in the run's log."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.json import JSONValue, dumps
from schemas.nodes.debug import LogConfig
from workers.nodes.node import NodeCall

#: Characters of a message that are shown; the output port has the whole.
SHOWN = 64 * 1024


class DebugLog:
    async def run(self, call: NodeCall[LogConfig]) -> Mapping[str, JSONValue]:
        if "message" not in call.inputs:
            call.log(call.config.level, "(no message)")
            return {}
        message = call.inputs["message"]
        text = message if isinstance(message, str) else dumps(message)
        call.log(call.config.level, text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text) - SHOWN} more)")
        return {"message": message}
