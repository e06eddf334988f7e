"""Hands attempts to a Lambda function. READ FIRST.

A function goes on whatever becomes of its worker, and nothing can stop it from outside. So each attempt is lent before
its function is invoked, and nobody else gets the run while it may be executed there:

Where FLO_URL is set, the event is a token. The function takes its order from the API, tells everything there, hears of
a cancellation there, and is given up when it is silent. Its answer only says that it has told the end; an answer that
is none says what became of the function, at once.

Without FLO_URL, the event is the order, and all is in the answer. When that breaks off, or the worker dies, nothing can
be asked, and nothing is guessed: the loan lasts until the function must be over, and then the run is somebody else's.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import structlog

from dispatch.claims import LostClaim
from schemas.app import AppLimits
from schemas.errors import Refused, Unavailable
from schemas.lambda_functions import InvocationType, invocation_for
from schemas.outcome import Away, ErrorKind, Failed, Outcome, Retry, RunError
from schemas.run import RunStatus
from schemas.settings import ExecutorName, Settings
from workers.app_limits import LimitsOfApps
from workers.engine.sink import EventSink
from workers.executors.awslambda.door import Door, Doors
from workers.executors.awslambda.errors import BrokeOff, FunctionFailed, NeverBegan, Throttled
from workers.executors.awslambda.listening import Listener
from workers.executors.awslambda.verdict import verdict
from workers.executors.base import RunOrder
from workers.executors.loan import Loan
from workers.runner.awslambda.words import MOST_SENT, Told, inline_to, token_to

log = structlog.get_logger()

#: How long an attempt waits for a function that is throttled; then another worker may try.
PATIENCE: Final = timedelta(seconds=10)
#: By when a function that is invoked has asked for its order; and one whose event Lambda queues first.
_BEGINS, _BEGINS_QUEUED = timedelta(seconds=30), timedelta(minutes=5)
#: Lambda lets no function run for longer.
_LONGEST: Final = timedelta(minutes=15)
#: How long a cold function takes to begin at most, and how long to end what it has to stop.
_COLD, _STOPS = timedelta(seconds=20), timedelta(seconds=10)
_AGAIN: Final = timedelta(seconds=1)
#: Pause after the first refusal, in seconds; doubles with each, and chance cuts it, so that not all come back at once.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0


class Lending(Protocol):
    """What is done about attempts that outlive their worker (`LoanBook`)."""

    async def lend(self, order: RunOrder, events: EventSink, loan: Loan) -> None: ...

    async def token(self, order: RunOrder, *, begins_within: timedelta) -> str: ...

    async def settle(self, run_id: str, attempt: int, outcome: Outcome) -> RunStatus | None: ...


@dataclass(slots=True)
class _Errand:
    """One attempt on its way to a function and back."""

    order: RunOrder
    function: str
    door: Door
    event: bytes
    events: EventSink
    #: The function tells the API itself; its end is not this worker's to record.
    calls_back: bool
    #: The function may run by now.
    begun: bool = False
    #: The worker has let go of it: only its end still matters.
    let_go: bool = False
    listener: Listener | None = None

    def begin(self) -> None:
        self.begun = True

    def release(self) -> None:
        self.let_go = True
        if self.listener is not None:
            self.listener.muted = True


class LambdaExecutor:
    """`lambda_invoke`, or `lambda_stream`, which hears of a run while it is executed."""

    def __init__(
        self,
        settings: Settings,
        *,
        name: ExecutorName,
        limits: LimitsOfApps,
        book: Lending,
        patience: timedelta = PATIENCE,
        doors: Doors | None = None,
    ) -> None:
        """Without `doors`, boto3 is opened when a run first needs it."""
        self._settings = settings
        self._name = name
        self._limits = limits
        self._book = book
        self._patience = patience
        self._doors = doors
        self._opening = asyncio.Lock()
        self._known: dict[str, Door] = {}
        self._let_go: set[asyncio.Task[None]] = set()

    async def run(self, order: RunOrder, events: EventSink) -> Outcome | Away:
        limits = await self._limits.read(order.app)
        try:
            wish = invocation_for(order.backend_config, limits, self._settings)
        except Refused as refusal:
            return Failed(error=RunError(kind=ErrorKind.FORBIDDEN, message=str(refusal)))
        if wish.function is None:
            raise Unavailable("this worker knows no function to hand runs to; set LAMBDA_EXECUTOR_FUNCTION")
        queued = wish.type is InvocationType.EVENT
        if queued and self._settings.api_url is None:
            raise Unavailable("a function that is invoked as an Event must call back; set FLO_URL to the API")
        door = self._known.get(wish.function) or await self._open(wish.function)
        event, until = await self._event(order, limits, begins=_BEGINS_QUEUED if queued else _BEGINS)
        if len(event) > MOST_SENT:
            return Failed(error=_too_large(len(event)))
        # Written before the function can begin, so that nobody else does, whatever becomes of this worker.
        handle = f"{wish.function}:{order.run_id}:{order.attempt}"
        await self._book.lend(order, events, Loan(backend=str(self._name), handle=handle, until=until))
        errand = _Errand(order, wish.function, door, event, events, calls_back=self._settings.api_url is not None)
        return await (self._send(errand) if queued else self._ask(errand))

    async def aclose(self) -> None:
        """Leave functions that still run to their loans."""
        for task in self._let_go:
            task.cancel()
        await asyncio.gather(*self._let_go, return_exceptions=True)
        if self._doors is not None:
            await self._doors.aclose()

    async def _event(self, order: RunOrder, limits: AppLimits, *, begins: timedelta) -> tuple[bytes, datetime]:
        """Give what the function is invoked with, and until when the attempt is lent."""
        api, now = self._settings.api_url, datetime.now(UTC) + self._patience
        if api is not None:
            token = await self._book.token(order, begins_within=begins + self._patience)
            return token_to(api, token), now + begins
        over = now + min(_COLD + order.document.settings.max_execution_time, _LONGEST)
        return inline_to(order, limits, until=over.timestamp()), over + _STOPS

    async def _send(self, errand: _Errand) -> Away:
        deadline = time.monotonic() + self._patience.total_seconds()
        refused = 0
        while True:
            try:
                await errand.door.send(errand.event)
                return Away()
            except Throttled as why:
                refused += 1
                await _pause(refused, deadline, why)
            except NeverBegan as why:
                raise Unavailable(str(why)) from why
            except BrokeOff as why:
                # Lambda may have the event. If so the function takes the order in time, else the loan runs out.
                log.warning("lambda.unclear", run_id=errand.order.run_id, reason=str(why))
                return Away()

    async def _ask(self, errand: _Errand) -> Outcome | Away:
        """Invoke and wait. Cancelled, it lets go of a function that may run: that can't be stopped from here."""
        task = asyncio.create_task(self._hear(errand), name=f"function of {errand.order.run_id}")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.done() or not errand.begun:
                task.cancel()
                await asyncio.wait([task])
                raise
        errand.release()
        settling = asyncio.create_task(self._settle(errand, task), name=f"end of {errand.order.run_id}")
        self._let_go.add(settling)
        settling.add_done_callback(self._let_go.discard)
        return Away()

    async def _settle(self, errand: _Errand, task: asyncio.Task[Outcome | Away]) -> None:
        """Write how an attempt ended that its worker has let go of, once its function says so."""
        try:
            outcome = await task
        except LostClaim:
            return  # it is settled, or another attempt has the run
        except Unavailable as why:
            outcome = Retry(after=timedelta(0), reason=str(why))
        if not isinstance(outcome, Away):
            await self._book.settle(errand.order.run_id, errand.order.attempt, outcome)

    async def _hear(self, errand: _Errand) -> Outcome | Away:
        """Give how the attempt ended, or Away when only its loan can tell. Raises LostClaim when the API knows."""
        try:
            end = await self._answer(errand)
        except FunctionFailed as failure:
            end = verdict(failure, function=errand.function)
            log.warning("lambda.failed", run_id=errand.order.run_id, function=errand.function, error=str(failure))
            if errand.calls_back:
                # Of what it has told before, this worker knows nothing: the end follows on what is in SQL.
                await self._book.settle(errand.order.run_id, errand.order.attempt, end)
                raise LostClaim(errand.order.run_id) from failure
        except BrokeOff as why:
            log.warning("lambda.broke_off", run_id=errand.order.run_id, function=errand.function, reason=str(why))
            return Away()
        match end:
            case Told(reason=None):
                raise LostClaim(errand.order.run_id)
            case Told(reason=reason, elsewhere=True):
                log.warning("lambda.refused", run_id=errand.order.run_id, function=errand.function, reason=reason)
                return Away()
            case Told(reason=reason):
                retry = Retry(after=_AGAIN, reason=f"the function {errand.function} gave the run back: {reason}")
                await self._book.settle(errand.order.run_id, errand.order.attempt, retry)
                raise LostClaim(errand.order.run_id)
            case None:
                return Away()
            case outcome:
                return outcome

    async def _answer(self, errand: _Errand) -> Outcome | Told | None:
        """Invoke, again when Lambda throttles: then nothing has run."""
        deadline = time.monotonic() + self._patience.total_seconds()
        refused = 0
        while True:
            errand.listener = Listener(errand.order, errand.events)
            try:
                return await errand.listener.listen(errand.door.ask(errand.event, begins=errand.begin))
            except Throttled as why:
                if errand.let_go:
                    raise Unavailable(str(why)) from why
                errand.begun = False
                refused += 1
                await _pause(refused, deadline, why)
            except NeverBegan as why:
                errand.begun = False
                raise Unavailable(str(why)) from why

    async def _open(self, function: str) -> Door:
        """Find the way to a function. In a thread: boto3 reads for a while what services there are."""
        async with self._opening:
            if function not in self._known:
                if self._doors is None:
                    self._doors = await asyncio.to_thread(self._open_doors)
                streams = self._name is ExecutorName.LAMBDA_STREAM
                self._known[function] = await asyncio.to_thread(self._doors.door, function, streams=streams)
            return self._known[function]

    def _open_doors(self) -> Doors:
        try:
            from workers.executors.awslambda.doors import BothDoors
        except ImportError as error:
            raise Unavailable(f"{self._name} needs boto3 ({error}): pip install 'flo[lambda]'") from error
        return BothDoors(self._settings)


async def _pause(refused: int, deadline: float, why: Throttled) -> None:
    """Wait before the next try. Raises Unavailable when it would be too late."""
    seconds = min(_FIRST_PAUSE * 2 ** min(refused - 1, 10), _LONGEST_PAUSE) * random.uniform(0.5, 1.0)
    if time.monotonic() + seconds > deadline:
        raise Unavailable(f"{why}; raise the function's concurrency, or lower FLO_MAX_CONCURRENCY") from why
    await asyncio.sleep(seconds)


def _too_large(size: int) -> RunError:
    message = (
        f"the run's payload, flow and history are {size:,} bytes, and Lambda takes at most {MOST_SENT:,} in one "
        "invocation; set FLO_URL at the workers, so that the function fetches them, or give less"
    )
    return RunError(kind=ErrorKind.INVALID_INPUT, message=message, details={"limit": MOST_SENT})
