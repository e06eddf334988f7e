"""Hooks: an operator's own code that is told about every flow and node that runs in a worker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from schemas.json import JSONValue
from schemas.outcome import Outcome, RunError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSeen:
    """The run that a hook is told about."""

    run_id: str
    app: str
    flow: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSeen:
    """The try at a node that a hook is told about."""

    run: RunSeen
    node_id: str
    node_type: str
    attempt: int


class Hook:
    """Override what you want to hear of. A hook watches: what it raises is logged, and changes nothing in the run.

    The run waits for each call, so that `before` is before; a hook that has much to do hands it to a task of its own.
    Nodes inside `flow.map` and `flow.race` are part of the node that holds them.
    """

    async def before_flow(self, run: RunSeen, payload: JSONValue) -> None: ...

    async def after_flow(self, run: RunSeen, outcome: Outcome) -> None:
        """The attempt is over, however it ended."""

    async def before_node(self, node: NodeSeen, inputs: Mapping[str, JSONValue]) -> None: ...

    async def after_node(self, node: NodeSeen, result: Mapping[str, JSONValue] | RunError) -> None:
        """The try is over: it gave these outputs, or failed; one that was cancelled is not told."""


async def tell(hooks: Sequence[Hook], call: Callable[[Hook], Awaitable[None]]) -> None:
    """Let every hook hear, one after the other."""
    for hook in hooks:
        try:
            await call(hook)
        except Exception as error:  # someone else's code; a side channel never fails a run
            log.error("hook.broke", hook=type(hook).__qualname__, exc_info=error)
