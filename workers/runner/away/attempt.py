"""One attempt, from its order to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from datetime import timedelta
from typing import TypeAlias

import httpx
import structlog

from schemas.app import AppLimits
from schemas.json import JSONObject
from schemas.outcome import ErrorKind, Failed, Outcome, RunError
from schemas.outcome_words import outcome_to
from workers.engine.sink import EventSink
from workers.executors.base import RunOrder
from workers.runner.away.line import CutOff, Line, Refused
from workers.runner.away.telling import Telling
from workers.runner.server.words import Order

log = structlog.get_logger()

#: How much longer than the flow's own limit an attempt may take before it is ended here.
_GRACE = timedelta(seconds=30)

#: Executes an order to its end, under what the operator allows its app; cancelled, it returns when nothing is left.
Execute: TypeAlias = Callable[[RunOrder, AppLimits, EventSink], Awaitable[Outcome]]


async def execute_away(
    api: str, token: str, executor: str, execute: Execute, *, http: httpx.AsyncClient | None = None
) -> Outcome | None:
    """Take the order, execute it, tell everything; answer the end, or None when it counted for nothing.

    `executor` names this process: no other gets the order after it. Raises Refused when there is nothing to execute
    here: somebody else does, or the run is over.
    """
    async with nullcontext(http) if http is not None else httpx.AsyncClient(trust_env=False) as client:
        line = Line(client, api, token)
        lent = await line.order(executor)
        order = Order.model_validate(lent["order"])
        attempt = _Attempt(line, order, last_seq=lent["last_seq"], renew_s=lent["renew_s"])
        return await attempt.to_the_end(execute)


class _Attempt:
    def __init__(self, line: Line, order: Order, *, last_seq: int, renew_s: float) -> None:
        self._line = line
        self._order = order
        self._stopped: Outcome | None = None
        self._task: asyncio.Task[Outcome] | None = None
        self._telling = Telling(line, last_seq=last_seq, renew_s=renew_s, stop=self._stop)

    async def to_the_end(self, execute: Execute) -> Outcome | None:
        try:
            self._task = asyncio.create_task(self._execute(execute), name=f"run {self._order.run_id}")
            await asyncio.wait([self._task])
            outcome = self._stopped or self._task.result()
            await self._telling.flush()
            return outcome if self._telling.counts and await self._tell(outcome) else None
        finally:
            if self._task is not None and not self._task.done():
                self._task.cancel()
                await asyncio.wait([self._task])
            await self._telling.aclose()

    def _stop(self, because: Outcome) -> None:
        if self._stopped is None:
            log.warning("run.stopped", run_id=self._order.run_id, because=outcome_to(because))
            self._stopped = because
            if self._task is not None:
                self._task.cancel()

    async def _execute(self, execute: Execute) -> Outcome:
        order = self._order.as_run_order()
        longest = order.document.settings.max_execution_time + _GRACE
        try:
            async with asyncio.timeout(longest.total_seconds()) as limit:
                return await execute(order, self._order.limits, self._telling)
        except asyncio.CancelledError:
            if self._stopped is None:
                raise
            return self._stopped
        except TimeoutError:
            if not limit.expired():
                raise
            message = f"the attempt did not end {_GRACE.total_seconds():g} s after the flow's own limit and was stopped"
            return Failed(error=RunError(kind=ErrorKind.TIMED_OUT, message=message))

    async def _tell(self, outcome: Outcome) -> bool:
        """Say how it ended, once the loan's renewal can't come in between."""
        await self._telling.aclose()
        body: JSONObject = {"outcome": outcome_to(outcome), "last_seq": self._telling.last_seq}
        try:
            return (await self._line.tell("outcome", body)).accepted
        except (Refused, CutOff) as why:
            log.error("run.unsettled", run_id=self._order.run_id, reason=str(why))
            return False
