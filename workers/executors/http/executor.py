"""Hands attempts to executors over HTTP, tells what they tell, and never guesses what became of one.

An executor goes on with an attempt only while this worker says that it holds it (`Endpoint.holding`), which it does as
long as it has its own lease. So an attempt that can't be asked after is dead once the last word has run out, and only
then is the run given to somebody else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import structlog

from dispatch.run_tokens import HoldRight, RunRight
from schemas.app import AppLimits
from schemas.errors import Refused, Unavailable
from schemas.executor_urls import executors_for
from schemas.outcome import ErrorKind, Failed, Outcome, Retry, RunError
from schemas.run import Happening
from schemas.settings import Settings
from workers.app_limits import LimitsOfApps
from workers.engine.sink import EventSink
from workers.executors.base import RunOrder
from workers.executors.http.endpoint import Endpoint
from workers.executors.http.errors import Dropped, Gone, Nonsense, NotStarted
from workers.executors.http.signing import Signing
from workers.executors.http.spread import Spread
from workers.runner import wire
from workers.runner.server.words import ALIVE_EVERY, order_to

log = structlog.get_logger()

#: How much longer than the flow's own limit the token of an attempt is good.
_TOKEN_GRACE = timedelta(minutes=10)
#: How far an executor's clock may be from ours; what it says of the time beyond that is not believed.
_CLOCK = timedelta(seconds=5)
#: Seconds between two tries to find an attempt again.
_AGAIN = 0.3
_CONNECT = 2.0
#: Seconds without a word after which a stream is taken for dropped.
_SILENCE = ALIVE_EVERY * 3


class HttpExecutor:
    """Spreads attempts over the executors that the operator names."""

    def __init__(
        self,
        settings: Settings,
        *,
        worker: str,
        limits: LimitsOfApps,
        signing: Signing,
        lease_left: Callable[[], timedelta],
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """`lease_left` tells for how long this worker can still be sure of its runs."""
        self._settings = settings
        self._worker = worker
        self._limits = limits
        self._signing = signing
        self._http = http or open_http()
        self._spread = Spread(lambda url: Endpoint(url, self._http, lease_left=lease_left, hold_token=self._hold_token))

    async def run(self, order: RunOrder, events: EventSink) -> Outcome:
        limits = await self._limits.read(order.app)
        try:
            urls = executors_for(order.backend_config, limits, self._settings)
        except Refused as refusal:
            return Failed(error=RunError(kind=ErrorKind.FORBIDDEN, message=str(refusal)))
        if not urls:
            raise Unavailable("this worker knows no executor to hand runs to; set EXECUTOR_URL")
        token = await self._token(order)
        deadline = self._spread.deadline()
        while True:
            async with self._spread.place(urls, deadline=deadline) as endpoint:
                try:
                    return await _Remote(endpoint, order, limits, events, token).to_the_end()
                except NotStarted as why:
                    log.info("run.not_taken", run_id=order.run_id, attempt=order.attempt, reason=str(why))

    async def aclose(self) -> None:
        await self._spread.aclose()
        await self._http.aclose()

    async def _token(self, order: RunOrder) -> str:
        right = RunRight(run_id=order.run_id, app=order.app, attempt=order.attempt)
        lasts = order.document.settings.max_execution_time + _TOKEN_GRACE
        return (await self._signing.signer()).run(right, lasts=lasts)

    async def _hold_token(self) -> str:
        return (await self._signing.signer()).hold(HoldRight(worker=self._worker))


class _Remote:
    """One attempt at one executor."""

    def __init__(self, endpoint: Endpoint, order: RunOrder, limits: AppLimits, events: EventSink, token: str) -> None:
        self._endpoint = endpoint
        self._order = order
        self._limits = limits
        self._events = events
        self._token = token
        self._key = (order.run_id, order.attempt)
        #: What its happenings may be about.
        self._subjects = frozenset([None, *(node.id for node in order.document.nodes)])
        #: The number of the last line that was taken.
        self._taken = 0

    async def to_the_end(self) -> Outcome:
        """Raises NotStarted; CancelledError and LostClaim when the attempt is confirmed dead over there."""
        with self._endpoint.holding(self._key):
            try:
                return await self._begin() or await self._settle()
            except NotStarted:
                raise
            except Gone as gone:
                await self._stop()  # the order may still be on its way: it will be refused
                return Retry(after=timedelta(seconds=1), reason=str(gone))
            except Nonsense as nonsense:
                await self._stop()
                reason = f"the executor at {self._endpoint.url} talks nonsense: {nonsense}"
                return Retry(after=timedelta(seconds=1), reason=reason)
            except BaseException:
                await self._stop()
                raise

    async def _begin(self) -> Outcome | None:
        """Send the order and listen; None when the stream breaks off."""
        try:
            async with self._endpoint.execute(self._key, self._body, self._token) as messages:
                return await self._listen(messages)
        except Dropped:
            return None

    async def _settle(self) -> Outcome:
        """Ask until the answer is known. Raises Gone."""
        log.warning("run.stream_dropped", run_id=self._order.run_id, executor=self._endpoint.url)
        while True:
            try:
                async with self._endpoint.follow(self._key, self._token, after=self._taken) as messages:
                    outcome = await self._listen(messages)
                if outcome is not None:
                    return outcome
            except Dropped as why:
                self._endpoint.let_go(self._key)
                if self._endpoint.has_let_go(self._key):
                    raise Gone(f"nothing is heard of the run any more: {why}") from why
            await asyncio.sleep(_AGAIN)

    async def _listen(self, messages: AsyncIterator[dict[str, Any]]) -> Outcome | None:
        """Take what is told; None when it breaks off. Raises LostClaim, Dropped or Nonsense."""
        async for message in messages:
            try:
                outcome = await self._hear(message)
            except (ValueError, LookupError, TypeError, AttributeError) as mistake:
                raise Nonsense(repr(mistake)) from mistake
            if outcome is not None:
                await _read_out(messages)
                return outcome
        return None

    async def _hear(self, message: dict[str, Any]) -> Outcome | None:
        if message["say"] == "alive":
            return None
        if message["seq"] != self._taken + 1:
            raise ValueError(f"line {message['seq']} came after line {self._taken}")
        match message["say"]:
            case "event":
                self._tell(wire.happening_from(message))
            case "flush":
                await self._events.flush()
                await self._endpoint.saved(self._key, self._token, message["seq"])
            case "done":
                return wire.outcome_from(message["outcome"])
            case what:
                raise ValueError(f"{what!r} is not what an executor says")
        self._taken += 1
        return None

    def _tell(self, happening: Happening) -> None:
        if happening.type not in wire.TOLD or happening.node_id not in self._subjects:
            raise ValueError("not a happening of this run's nodes")
        now = datetime.now(UTC)
        self._events.emit(replace(happening, time=now) if abs(happening.time - now) > _CLOCK else happening)

    def _body(self, hold_s: float, held_until: str | None) -> bytes:
        return order_to(self._order, self._limits, hold_s=max(hold_s, 0.1), held_until=held_until)

    async def _stop(self) -> None:
        """Confirm that the attempt is dead, also when whoever waits is cancelled again."""
        await _unhurried(self._endpoint.stop(self._key, self._token))


async def _read_out(messages: AsyncIterator[dict[str, Any]]) -> None:
    """Read what is left of a stream, so that its connection can be used again."""
    with contextlib.suppress(Dropped, Nonsense):
        async for _ in messages:
            pass


async def _unhurried(work: Awaitable[None]) -> None:
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            continue
    task.result()


def open_http() -> httpx.AsyncClient:
    """Open a client whose pool has no limit: each run listens on a connection of its own."""
    timeout = httpx.Timeout(_SILENCE, connect=_CONNECT, pool=None)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=30)
    # Not through a proxy that the environment names: an executor's URL is the operator's own word.
    return httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False)
