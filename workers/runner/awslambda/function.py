"""What a function does with an attempt: executes it, ends it before Lambda would, and says everything in time."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import structlog

from schemas.app import AppLimits
from schemas.errors import FloError
from schemas.json import JSONObject, loads, to_bytes
from schemas.outcome import Cancelled, ErrorKind, Failed, Outcome, Retry, RunError
from schemas.outcome_words import outcome_to
from schemas.settings import Settings
from workers.engine.sink import EventSink
from workers.executors.base import LocalExecutor, RunOrder
from workers.runner.away.attempt import execute_away
from workers.runner.away.line import CutOff, Refused
from workers.runner.awslambda.words import MOST_ANSWERED, Call, Inline, Token, Told, answer_to, told_to
from workers.runner.channel import line_of
from workers.runner.server.flights import Flights
from workers.runner.server.serve import KnownLimits, open_modes

log = structlog.get_logger()

#: Seconds before Lambda's own end at which a run is ended: what is left of it must go, and the end must be told.
MARGIN = 1.0
_AT_ONCE = timedelta(0)
#: Attempts at once in one process: Lambda gives it one, a managed instance perhaps more.
_CAPACITY = 64


class Function:
    """A warm instance: what it opened is there for the next invocation."""

    def __init__(self, modes: LocalExecutor, limits: KnownLimits, flights: Flights) -> None:
        self._modes = modes
        self._limits = limits
        self._flights = flights

    async def answer(self, call: Call, *, left: float) -> JSONObject:
        """Execute an attempt, and answer with all of it. `left` is for how many seconds Lambda lets the function go."""
        if isinstance(call, Token):
            return told_to(await self._tell(call, left))
        said = [loads(line) async for chunk in self._lines(call, left) for line in chunk.splitlines()]
        lines = [one for one in said if one["say"] in ("event", "flush")]
        return _in_size(lines, said[-1]["outcome"])

    async def stream(self, call: Call, *, left: float) -> AsyncIterator[bytes]:
        """Execute an attempt, and give lines of JSON as things happen."""
        if isinstance(call, Token):
            yield line_of({"say": "told", **told_to(await self._tell(call, left))}) + b"\n"
            return
        async for chunk in self._lines(call, left):
            yield chunk

    async def _lines(self, call: Inline, left: float) -> AsyncIterator[bytes]:
        seconds, until = left - MARGIN, call.until - time.time()
        flight = self._flights.begin(call.order)
        ending = asyncio.get_running_loop().call_later(
            max(min(seconds, until), 0.0), flight.stop_soon, _too_long(seconds, until)
        )
        try:
            async for chunk in flight.follow(0):
                for said in map(loads, chunk.splitlines()):
                    if said["say"] == "flush":
                        # Nobody can answer that it is durable: the worker makes it so when it hears of it.
                        flight.saved(said["seq"])
                yield chunk
        finally:
            ending.cancel()
            await flight.stop(Cancelled(reason="nobody listens any more"))

    async def _tell(self, call: Token, left: float) -> Told:
        """Execute an attempt whose order waits at the API; answer whether that knows the end."""

        async def execute(order: RunOrder, limits: AppLimits, events: EventSink) -> Outcome:
            self._limits[order.app] = limits
            return await self._in_time(order, events, left - 2 * MARGIN)

        try:
            # A random name, as Lambda invokes anew under the same request id what it thinks has failed.
            name = f"lambda-{secrets.token_hex(8)}"
            async with asyncio.timeout(left - MARGIN):
                outcome = await execute_away(call.api, call.token, name, execute)
        except (Refused, CutOff) as why:
            log.warning("run.refused", reason=str(why))
            return Told(str(why), elsewhere=isinstance(why, Refused))
        except TimeoutError:
            return Told(f"its time was over before the API at {call.api} had heard how it ended; can it be reached?")
        return Told() if outcome is not None else Told("the attempt had its run no longer, or could not tell its end")

    async def _in_time(self, order: RunOrder, events: EventSink, seconds: float) -> Outcome:
        try:
            async with asyncio.timeout(max(seconds, 0.0)) as limit:
                return await self._modes.run(order, events)
        except TimeoutError:
            if not limit.expired():
                raise
            return _too_long(max(seconds, 0.0), float("inf"))
        except FloError as error:
            return Failed(error=RunError(kind=ErrorKind.INTERNAL, message=str(error)))


@asynccontextmanager
async def open_function(settings: Settings) -> AsyncIterator[Function]:
    """Open the modes that work here. Raises Unavailable with the reason when a named one does not.

    Lambda allows no namespaces: code in isolates works there, commands do not (SANDBOX_CODE_ONLY).
    """
    limits = KnownLimits()
    async with open_modes(settings, limits) as (modes, mode):
        log.info("function.opened", mode=str(mode), by="operator" if settings.execution_mode else "what works here")
        flights = Flights(modes, limits, capacity=_CAPACITY)
        try:
            yield Function(modes, limits, flights)
        finally:
            await flights.aclose()


def _too_long(seconds: float, until: float) -> Failed | Retry:
    if until <= 0:
        return Retry(after=_AT_ONCE, reason="its function began when the attempt was to be over")
    if until < seconds:
        message = f"the attempt was to be over {until:.0f} s after its function began, and was ended"
    else:
        message = (
            f"the flow did not end in the {max(seconds, 0.0):.0f} s that its Lambda function had left, and was ended "
            "before Lambda would have; raise the function's Timeout (at most 900 s), lower "
            "settings.max_execution_time_ms, or run it elsewhere (`mode`)"
        )
    return Failed(error=RunError(kind=ErrorKind.TIMED_OUT, message=message))


def _size(said: JSONObject) -> int:
    """Tell how many bytes AWS's runtime makes of it: with spaces, and with six for each character beyond ASCII."""
    size = len(to_bytes(said))
    return size if size * 6 <= MOST_ANSWERED else len(json.dumps(said))


def _in_size(lines: list[dict[str, Any]], outcome: dict[str, Any]) -> JSONObject:
    """Answer, but no more than Lambda carries: it would take an answer too large for the function's failure."""
    answer = answer_to(lines, outcome)
    size = _size(answer)
    if size <= MOST_ANSWERED:
        return answer
    message = (
        f"what the run told and gave is {size:,} bytes, and a Lambda function answers with at most {MOST_ANSWERED:,}; "
        "give less, stream it (lambda_stream), or set FLO_URL at the workers, so that the function calls back"
    )
    error = RunError(kind=ErrorKind.OUTPUT_EXCEEDED, message=message, details={"limit": MOST_ANSWERED})
    small, room = [], MOST_ANSWERED // 2
    for line in lines:
        room -= _size(line)
        if room < 0:
            break
        small.append(line)
    return answer_to(small, outcome_to(Failed(error=error)))
