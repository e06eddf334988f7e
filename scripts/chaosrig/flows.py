"""The flows of the load: chains of calls to the witness, with pauses between, of different length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scripts.chaosrig.rig import Rig

APP = "chaos"


@dataclass(frozen=True, slots=True)
class Chain:
    """A flow that calls the witness `steps` times; `pauses` are the milliseconds before each call but the first."""

    name: str
    pauses: tuple[int, ...]
    calls: bool = True

    @property
    def steps(self) -> int:
        return len(self.pauses) + 1 if self.calls else 0

    def document(self, port: int) -> dict[str, Any]:
        if not self.calls:
            said = {"id": "say", "node_type": "debug.log", "config": {"message": self.name}}
            return {"name": self.name, "nodes": [said]}
        nodes: list[dict[str, Any]] = []
        wires: list[dict[str, str]] = []
        for step in range(self.steps):
            code = f"export default () => ({{url: 'http://127.0.0.1:{port}/step/{step}'}})"
            nodes.append({"id": f"url{step}", "node_type": "code.javascript", "config": {"code": code}})
            nodes.append({"id": f"call{step}", "node_type": "http.request", "config": {"timeout_ms": 20_000}})
            wires.append(_wire(f"url{step}", "url", f"call{step}", "url"))
            if step:
                pause = {"delay_ms": self.pauses[step - 1]}
                nodes.append({"id": f"wait{step}", "node_type": "time.delay", "config": pause})
                wires.append(_wire(f"call{step - 1}", "status", f"wait{step}", "data"))
                wires.append(_wire(f"wait{step}", "data", f"url{step}", "before"))
        return {"name": self.name, "nodes": nodes, "connections": wires}


SHORT = Chain("short", (), calls=False)
LONG = Chain("long", (40, 80, 120))
#: Longer than a lease.
SLOW = Chain("slow", (2500,))
#: A single call.
CALL = Chain("call", ())
CHAINS = {chain.name: chain for chain in (SHORT, LONG, SLOW, CALL)}


def chain_of(number: int) -> Chain:
    """Choose the flow of the load's n-th run."""
    if number % 20 == 7:
        return SLOW
    return LONG if number % 3 else SHORT


async def push(rig: Rig, port: int) -> None:
    """Push every flow, each with an event of its name; `port` is the witness's."""
    for chain in CHAINS.values():
        answer = await rig.http.put(f"/api/v1/apps/{APP}/flows/{chain.name}", json=chain.document(port))
        answer.raise_for_status()
        event = {"kind": "invoke", "flow": chain.name}
        answer = await rig.http.put(f"/api/v1/apps/{APP}/events/{chain.name}", json=event)
        answer.raise_for_status()


def _wire(from_node: str, from_port: str, to_node: str, to_port: str) -> dict[str, str]:
    return {"from_node": from_node, "from_port": from_port, "to_node": to_node, "to_port": to_port}
