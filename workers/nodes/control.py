"""time.delay and respond."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from schemas.json import JSONValue
from schemas.nodes.control import LONGEST_SLEEP_MS, DelayConfig, RespondConfig
from schemas.outcome import Wait, WaitKind
from workers.nodes.node import NodeCall, Park, too_long

LONGEST_SLEEP = timedelta(milliseconds=LONGEST_SLEEP_MS)


class Delay:
    """Wait, then pass `data` on: a short while in this process, longer ones without it."""

    async def run(self, call: NodeCall[DelayConfig]) -> Mapping[str, JSONValue]:
        delay, limit = timedelta(milliseconds=call.config.delay_ms), call.config.limit
        if limit is not None and limit < delay:
            await _pass(call, limit)
            raise too_long(limit, raise_with="timeout_ms in its config")
        await _pass(call, delay)
        return dict(call.inputs)


async def _pass(call: NodeCall[DelayConfig], span: timedelta) -> None:
    if call.waits is None or span <= LONGEST_SLEEP:
        await asyncio.sleep(span.total_seconds())
        return
    if call.waits.begun is None:
        until = datetime.now(UTC) + span
        call.waits.begin({"until": until.isoformat()}, port="until", value=until.isoformat(), opens=None)
    else:
        until = datetime.fromisoformat(str(call.waits.begun["until"]))
    if not call.waits.is_over(until):
        raise Park(Wait(node_id=call.node_id, kind=WaitKind.DELAY, until=until))


class Respond:
    """Answer with `value`; without it, with the payload (a root), or with an object of all other ports."""

    async def run(self, call: NodeCall[RespondConfig]) -> Mapping[str, JSONValue]:
        rest = {port: value for port, value in call.inputs.items() if port not in ("value", "status", "headers")}
        return {
            "value": call.inputs["value"] if "value" in call.inputs else rest.get("payload", rest),
            "status": call.inputs.get("status", call.config.status),
            "headers": call.inputs.get("headers", dict(call.config.headers)),
        }
