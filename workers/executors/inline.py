"""Executes runs in the worker's own loop; their code still runs in sandboxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from schemas.outcome import Outcome
from workers.engine.drive import run_flow
from workers.engine.hooks import Hook
from workers.engine.plan import Plans
from workers.engine.registry import BUILT_IN, Registry
from workers.engine.shared import Shared
from workers.engine.sink import EventSink
from workers.executors.base import RunOrder
from workers.nodes.node import NodeTools


class InlineExecutor:
    """The engine itself. `tools_for` makes what the nodes of one attempt may use."""

    def __init__(
        self,
        tools_for: Callable[[RunOrder], NodeTools],
        *,
        registry: Registry = BUILT_IN,
        hooks: Sequence[Hook] = (),
        shared: Shared | None = None,
    ) -> None:
        self._tools_for = tools_for
        self._plans = Plans(registry)
        self._hooks = hooks
        self._shared = shared or Shared()

    async def run(self, order: RunOrder, events: EventSink) -> Outcome:
        return await run_flow(
            order.document,
            order.payload,
            tools=self._tools_for(order),
            events=events,
            past=order.past,
            plans=self._plans,
            shared=self._shared,
            hooks=self._hooks,
            may_park=order.may_park,
        )

    async def aclose(self) -> None:
        """Nothing of its own to close: attempts end with their tasks, sandboxes with their pool."""
