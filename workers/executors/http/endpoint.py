"""One executor as its worker sees it: what is asked of it, whether it can be trusted to answer, and what it holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import httpx
import orjson
import structlog

from dispatch.claims import LostClaim
from schemas.errors import Unavailable
from schemas.json import JSONObject, dumps, loads
from workers.executors.http.errors import Dropped, Gone, Nonsense, NotStarted, is_nobody_there
from workers.runner.server.clock import HEADER, FarClock
from workers.runner.server.words import NDJSON

log = structlog.get_logger()

#: Pause before an executor that did not answer is tried again, in seconds; doubles with each time.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 15.0
#: Seconds between two words on what is still held, and for which one may take.
_HOLD_EVERY = 1.0
#: Seconds to be told the time, and until one that was started anew is asked again.
_ASK_WITHIN, _ANOTHER_CLOCK = 5.0, 0.05
#: The part of the lease's rest that an executor is told of: it needs time to end what is let go.
_PART = 0.8
#: Seconds that ending it may take.
_MARGIN = 1.0

#: Gives an attempt's key its place in a request's path.
Key = tuple[str, int]


class Endpoint:
    """One `flo executor`."""

    def __init__(
        self,
        url: str,
        http: httpx.AsyncClient,
        *,
        lease_left: Callable[[], timedelta],
        hold_token: Callable[[], Awaitable[str]],
    ) -> None:
        self.url = url
        self.in_flight = 0
        #: Not asked for anything new before this, by the monotonic clock.
        self.closed_until = 0.0
        self.reason = ""
        self._http = http
        self._clock = FarClock()
        self._lease_left = lease_left
        self._hold_token = hold_token
        self._failures = 0
        #: What it is told that this worker holds.
        self._held: set[Key] = set()
        #: Until when it goes on with each attempt if it hears nothing more from here, by the monotonic clock.
        self._until: dict[Key, float] = {}
        self._holding: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def execute(
        self, key: Key, body: Callable[[float, str | None], bytes], token: str
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Send an order; give what is told of the attempt. Raises NotStarted, Dropped or LostClaim.

        `body` writes it, with for how long it is held, and until when by the executor's clock.
        """
        if not self._clock.is_known:
            await self._ask_the_time()
        hold_s = self._seconds_left()
        content = body(hold_s, self._clock.after(hold_s))
        request = self._http.build_request(
            "POST", f"{self.url}/execute/stream", content=content, headers=_signed(token)
        )
        try:
            response = await self._http.send(request, stream=True)
            self._clock.learn(response.headers.get(HEADER))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._unreachable(error) from error
        except httpx.TransportError as error:
            self._fail(f"{type(error).__name__} {error}")
            raise Dropped(self.reason) from error
        finally:
            self._until[key] = time.monotonic() + hold_s  # from when the order came, at the latest
        try:
            await self._taken(response)
            yield _messages(response)
        finally:
            await response.aclose()

    @asynccontextmanager
    async def follow(self, key: Key, token: str, *, after: int) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Go on listening to an attempt. Raises Gone when it is not there any more, Dropped when nobody answers."""
        headers = {**_signed(token), "accept": NDJSON}
        request = self._http.build_request("GET", f"{self._path(key)}?after={after}", headers=headers)
        try:
            response = await self._http.send(request, stream=True)
        except httpx.TransportError as error:
            raise self._lost(error) from error
        try:
            if response.status_code == HTTPStatus.NOT_FOUND:
                raise Gone(f"the executor at {self.url} knows nothing of it: it was started anew")
            if response.status_code != HTTPStatus.OK:
                raise Dropped(f"the executor at {self.url} answers {response.status_code}")
            self._hold_on(key)
            yield _messages(response)
        finally:
            await response.aclose()

    async def saved(self, key: Key, token: str, seq: int) -> None:
        """Tell that what was told is durable. Raises Dropped."""
        try:
            answer = await self._http.post(f"{self._path(key)}/saved?seq={seq}", headers=_signed(token))
        except httpx.TransportError as error:
            raise Dropped(f"{self.url}: {type(error).__name__}") from error
        if answer.status_code != HTTPStatus.OK:
            raise Dropped(f"the executor at {self.url} answers {answer.status_code}")

    async def stop(self, key: Key, token: str) -> None:
        """End an attempt. Returns when it is confirmed dead, or can be nothing else: nobody is there, or holds it."""
        self.let_go(key)
        while True:
            try:
                answer = await self._http.delete(self._path(key), headers=_signed(token))
                if answer.status_code == HTTPStatus.OK:
                    return
            except httpx.TransportError as error:
                if is_nobody_there(error):
                    return
            if self.has_let_go(key):
                return
            await asyncio.sleep(_FIRST_PAUSE)

    @contextmanager
    def holding(self, key: Key) -> Iterator[None]:
        """Say, for as long as this worker has its lease, that it holds an attempt."""
        self._hold_on(key)
        try:
            yield
        finally:
            self.let_go(key)
            self._until.pop(key, None)

    def let_go(self, key: Key) -> None:
        """Say no more that this worker holds an attempt, until it is heard of again."""
        self._held.discard(key)

    def has_let_go(self, key: Key) -> bool:
        """Tell whether the executor must have ended an attempt, as no word that it is held can count any more."""
        return time.monotonic() > self._until.get(key, 0.0) + _MARGIN

    def _hold_on(self, key: Key) -> None:
        self._held.add(key)
        if self._holding is None or self._holding.done():
            self._holding = asyncio.create_task(self._hold(), name=f"hold {self.url}")

    async def aclose(self) -> None:
        if self._holding is not None:
            self._holding.cancel()
            await asyncio.gather(self._holding, return_exceptions=True)

    async def _hold(self) -> None:
        while self._held:
            await asyncio.sleep(min(_HOLD_EVERY, max(self._seconds_left() / 3, 0.05)))
            for_s = self._seconds_left()
            if not self._held or for_s <= 0:
                continue
            try:
                token = await self._hold_token()
                held = list(self._held)
                until = self._clock.after(for_s)
                said: JSONObject = {"runs": [list(key) for key in held], "for_s": for_s, "until": until}
                # Noted before it is sent, and also if no answer comes: it may have been heard.
                heard_by = time.monotonic() + _HOLD_EVERY
                self._until.update({key: max(self._until.get(key, 0.0), heard_by + for_s) for key in held})
                answer = await self._http.post(
                    f"{self.url}/hold", content=dumps(said), headers=_signed(token), timeout=_HOLD_EVERY
                )
                self._clock.learn(answer.headers.get(HEADER))
                if answer.status_code != HTTPStatus.OK:
                    log.warning("hold.refused", executor=self.url, status=answer.status_code)
            except (httpx.TransportError, Unavailable) as error:
                log.warning("hold.missed", executor=self.url, error=str(error) or type(error).__name__)

    async def _ask_the_time(self) -> None:
        """Have the executor show its clock before it is sent anything. Raises NotStarted."""
        try:
            answer = await self._http.get(f"{self.url}/health", timeout=_ASK_WITHIN)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        self._clock.learn(answer.headers.get(HEADER))

    async def _taken(self, response: httpx.Response) -> None:
        """Raise unless the executor took the attempt."""
        if response.status_code == HTTPStatus.OK:
            self._failures = 0
            return
        said = await _detail(response)
        match response.status_code:
            case HTTPStatus.CONFLICT:
                raise LostClaim(said)
            case HTTPStatus.PRECONDITION_FAILED:  # it was started anew, and has just shown its clock
                self.reason = f"the executor at {self.url} has another clock than before"
                self.closed_until = time.monotonic() + _ANOTHER_CLOCK
                raise NotStarted(self.reason)
            case HTTPStatus.SERVICE_UNAVAILABLE:
                self.reason = f"the executor at {self.url} is full or busy: {said}"
                self.closed_until = time.monotonic() + _retry_after(response)
                raise NotStarted(self.reason)
            case status:
                self._fail(f"it answers {status}: {said}")
                raise NotStarted(self.reason)

    def _unreachable(self, error: Exception) -> NotStarted:
        self._fail(f"{type(error).__name__} {error}")
        return NotStarted(self.reason)

    def _lost(self, error: Exception) -> Gone | Dropped:
        self._fail(f"{type(error).__name__} {error}")
        return Gone(self.reason) if is_nobody_there(error) else Dropped(self.reason)

    def _fail(self, why: str) -> None:
        """Leave it alone for a while, the longer the more often it failed."""
        self._failures += 1
        pause = min(_FIRST_PAUSE * 2 ** min(self._failures - 1, 10), _LONGEST_PAUSE)
        self.closed_until = time.monotonic() + pause
        self.reason = f"the executor at {self.url} failed: {why}"
        log.warning("executor.failed", executor=self.url, error=why, pause_s=pause)

    def _seconds_left(self) -> float:
        return self._lease_left().total_seconds() * _PART

    def _path(self, key: Key) -> str:
        return f"{self.url}/execute/{key[0]}/{key[1]}"


async def _messages(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Read lines of JSON. Raises Dropped when they break off, Nonsense when they are none."""
    partial: list[bytes] = []
    try:
        async for chunk in response.aiter_bytes():
            *lines, rest = chunk.split(b"\n")
            if lines and partial:
                lines[0] = b"".join([*partial, lines[0]])
                partial.clear()
            if rest:
                partial.append(rest)
            for line in lines:
                yield loads(line)
    except httpx.TransportError as error:
        raise Dropped(f"{type(error).__name__} {error}") from error
    except ValueError as error:
        raise Nonsense(f"it says what is no JSON: {error}") from error


async def _detail(response: httpx.Response) -> str:
    try:
        said = orjson.loads(await response.aread())
        return str(said["detail"])[:500]
    except (ValueError, LookupError, TypeError, httpx.TransportError):
        return "no reason given"


def _retry_after(response: httpx.Response) -> float:
    given = response.headers.get("retry-after", "")
    return min(float(given), _LONGEST_PAUSE) if given.isdecimal() else 1.0


def _signed(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", "content-type": "application/json"}
