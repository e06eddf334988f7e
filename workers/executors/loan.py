"""Lending attempts to executors that outlive their worker, and settling what nobody there can tell any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from dispatch.claims import LostClaim
from dispatch.run_tokens import RunRight
from dispatch.store.loans import Lent, end_loans, lend, read_lent
from dispatch.store.session import Store
from dispatch.store.standing import read_standing
from dispatch.store.writer import RunWriter
from schemas.outcome import Outcome
from schemas.run import RunStatus
from workers.app_limits import LimitsOfApps
from workers.engine.sink import EventSink
from workers.executors.base import RunOrder
from workers.executors.http.signing import Signing
from workers.runner.server.words import order_words

#: How much longer than the flow's own limit, and the time until it begins, the token of an attempt is good.
_TOKEN_GRACE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loan:
    """Where an attempt goes."""

    #: The executor, as `mode` names it.
    backend: str
    #: How it is known there; made of the run and the attempt, so that starting it twice is once.
    handle: str
    #: By when it must have begun. From then on its call-backs make the loan last.
    until: datetime


class LoanBook:
    """One worker's view of what is lent."""

    def __init__(self, store: Store, writer: RunWriter, limits: LimitsOfApps, signing: Signing) -> None:
        self._store = store
        self._writer = writer
        self._limits = limits
        self._signing = signing

    async def lend(self, order: RunOrder, events: EventSink, loan: Loan) -> None:
        """Write the loan; to be called before anything is started there. Raises LostClaim.

        What was told of the attempt is durable first: its next event may come from there.
        """
        await events.flush()
        limits = await self._limits.read(order.app)
        work = partial(
            lend,
            run_id=order.run_id,
            attempt=order.attempt,
            backend=loan.backend,
            handle=loan.handle,
            until=loan.until,
            order=order_words(order, limits),
        )
        await self._store.transact(work)

    async def token(self, order: RunOrder, *, begins_within: timedelta) -> str:
        """Sign what the attempt shows when it calls back."""
        right = RunRight(run_id=order.run_id, app=order.app, attempt=order.attempt)
        lasts = begins_within + order.document.settings.max_execution_time + _TOKEN_GRACE
        return (await self._signing.signer()).run(right, lasts=lasts)

    async def open(self, backend: str) -> Sequence[Lent]:
        """List the attempts that are with a backend, whichever worker has lent them."""
        return await self._store.transact(partial(read_lent, backend=backend))

    async def settle(self, run_id: str, attempt: int, outcome: Outcome) -> RunStatus | None:
        """Write how an attempt ended that can't tell it itself; None when it has told, or another has the run."""
        async with self._store.read() as connection:
            standing = await read_standing(connection, run_id)
        if standing is None or not standing.is_held_by(attempt):
            return None
        try:
            status = await self._writer.record(standing.claim, outcome, events=(), last_seq=None)
        except LostClaim:
            return None
        await self._store.transact(partial(end_loans, run_ids=[run_id]))
        return status
