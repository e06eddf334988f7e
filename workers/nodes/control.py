"""time.delay and respond."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from schemas.json import JSONValue
from schemas.nodes.control import DelayConfig, RespondConfig
from workers.nodes.node import NodeCall


class Delay:
    """Wait in this process, then pass `data` on."""

    async def run(self, call: NodeCall[DelayConfig]) -> Mapping[str, JSONValue]:
        await asyncio.sleep(call.config.delay_ms / 1000)
        return dict(call.inputs)


class Respond:
    """Answer with `value`; without it, with the payload (a root), or with an object of all other ports."""

    async def run(self, call: NodeCall[RespondConfig]) -> Mapping[str, JSONValue]:
        rest = {port: value for port, value in call.inputs.items() if port not in ("value", "status", "headers")}
        return {
            "value": call.inputs["value"] if "value" in call.inputs else rest.get("payload", rest),
            "status": call.inputs.get("status", call.config.status),
            "headers": call.inputs.get("headers", dict(call.config.headers)),
        }
