"""Talks to a Flo server. `FloClient` waits, `AsyncFloClient` is awaited; both send the requests of `calls.py`."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, Unpack, cast

import httpx

from flo import answers, calls
from flo.calls import Call, InvokeOptions
from flo.errors import FloError, Mistake, NoServer
from flo.home import Home
from flo.sse import Reader
from flo.wire import LIVE, Accepted, Answer, JSONValue, Run, RunEvent

DEFAULT_URL = "http://127.0.0.1:8080"

#: The server answers at once, except where it waits for a run: there it keeps silent as long as it takes.
_TIMEOUT = httpx.Timeout(30, connect=5)
_PATIENT = httpx.Timeout(30, connect=5, read=None)

#: Pauses, in seconds, before a broken stream is taken up again; then the server is taken for gone.
_RETRY_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)


class FloClient:
    """A Flo server, for programs that wait for its answers. Raises FloError and nothing else.

    Without arguments it finds the server and key by itself: FLO_URL, FLO_API_KEY and FLO_APP, else the `flo dev` of
    this home (FLO_HOME, else `.flo` in this folder).
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        app: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url, headers, self.app = _where(url, key, app)
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=_TIMEOUT, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def push(self, flow: str, document: JSONValue) -> dict[str, JSONValue]:
        """Push a version of a flow; the same content again gives the same version."""
        return cast(dict[str, JSONValue], self._send(calls.push(self.app, flow, document)))

    def put_event(
        self,
        event: str,
        *,
        kind: str,
        flow: str,
        config: Mapping[str, JSONValue] | None = None,
        version: int | None = None,
    ) -> dict[str, JSONValue]:
        """Create or change an event: a way to start a flow."""
        call = calls.put_event(self.app, event, kind=kind, flow=flow, config=config, version=version)
        return cast(dict[str, JSONValue], self._send(call))

    def delete_event(self, event: str) -> None:
        """Remove an event; its runs stay."""
        self._send(calls.delete_event(self.app, event))

    def invoke(self, event: str, payload: JSONValue = None, **options: Unpack[InvokeOptions]) -> Answer:
        """Run an event's flow now and wait for its end."""
        answer = cast(Answer, self._send(calls.invoke(self.app, event, payload, **options), timeout=_PATIENT))
        if answer["status"] not in LIVE:
            return answer
        run = self.finished(answer["run_id"])  # it takes longer than the server waits
        return {"run_id": run["run_id"], "status": run["status"], "result": run["result"], "error": run["error"]}

    def stream(self, event: str, payload: JSONValue = None, **options: Unpack[InvokeOptions]) -> Iterator[RunEvent]:
        """Run an event's flow now and give each of its events as it happens, up to `run_completed`."""
        last: RunEvent | None = None
        try:
            for last in self._stream(calls.streamed(calls.invoke(self.app, event, payload, **options))):
                yield last
        except NoServer:
            if last is None:
                raise
        if last is not None and last["type"] != "run_completed":
            yield from self.follow(last["run_id"], after=last["seq"])

    def invoke_async(
        self,
        event: str,
        payload: JSONValue = None,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[InvokeOptions],
    ) -> Accepted:
        """Queue a run of an event's flow; with the same idempotency key it is the same run, however often."""
        call = calls.invoke_async(self.app, event, payload, idempotency_key=idempotency_key, **options)
        return cast(Accepted, self._send(call))

    def run(self, run_id: str) -> Run:
        """Read a run, with its nodes."""
        return cast(Run, self._send(calls.run(run_id)))

    def runs(
        self, *, app: str | None = None, status: str | None = None, lane: str | None = None, limit: int = 100
    ) -> list[Run]:
        """List the newest runs."""
        pages = _Pages(limit)
        while pages.want:
            call = calls.runs(app=app, status=status, lane=lane, cursor=pages.cursor, limit=pages.want)
            pages.take(self._send(call))
        return cast(list[Run], pages.items)

    def events(self, run_id: str, *, after: int = 0, timeout: float = 0) -> list[RunEvent]:
        """List a run's events after number `after`; wait up to `timeout` seconds (at most 55) for the first of them."""
        call = calls.run_events(run_id, after=after, timeout=timeout)
        return cast(list[RunEvent], self._send(call, timeout=_PATIENT)["items"])

    def follow(self, run_id: str, *, after: int = 0) -> Iterator[RunEvent]:
        """Give each event of a run as it happens, up to `run_completed`, through any break of the connection."""
        # A server that never answered is an error at once; one that goes away may come back.
        pauses = iter(_RETRY_PAUSES if after else ())
        while True:
            with suppress(NoServer):
                over = False
                for event in self._stream(calls.run_stream(run_id, after=after)):
                    yield event
                    after, pauses = event["seq"], iter(_RETRY_PAUSES)
                    over = event["type"] == "run_completed"  # a redriven run has completed once before
                if over:
                    return
            if (pause := next(pauses, None)) is None:
                raise NoServer(self.url)
            time.sleep(pause)

    def finished(self, run_id: str) -> Run:
        """Wait for a run's end, and read it."""
        for _ in self.follow(run_id):
            pass
        return self.run(run_id)

    def cancel(self, run_id: str) -> Run:
        """Ask a run to stop."""
        return cast(Run, self._send(calls.on_run(run_id, "cancel")))

    def metrics(self) -> str:
        """Read the server's figures, as text for Prometheus."""
        return str(self._send(calls.metrics(), as_text=True))

    def send(self, call: Call) -> Any:
        """Send any call of `calls.py`, and give the JSON of the answer."""
        return self._send(call)

    def _send(self, call: Call, *, timeout: httpx.Timeout = _TIMEOUT, as_text: bool = False) -> Any:
        try:
            answer = self._http.send(_request(self._http.build_request, call, timeout))
        except httpx.HTTPError as failure:
            raise _explained(failure, self.url) from None
        return answers.read(answer.status_code, answer.content, as_text=as_text)

    def _stream(self, call: Call) -> Iterator[RunEvent]:
        reader = Reader()
        try:
            answer = self._http.send(_request(self._http.build_request, call, _PATIENT), stream=True)
            try:
                if answer.status_code >= 400:
                    raise answers.refusal(answer.status_code, answer.read())
                for line in answer.iter_lines():
                    if (event := reader.line(line)) is not None:
                        yield event
            finally:
                answer.close()
        except httpx.HTTPError as failure:
            raise _explained(failure, self.url) from None


class AsyncFloClient:
    """A Flo server, for programs on an event loop; as FloClient otherwise."""

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        app: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url, headers, self.app = _where(url, key, app)
        self._http = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=_TIMEOUT, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def push(self, flow: str, document: JSONValue) -> dict[str, JSONValue]:
        """Push a version of a flow; the same content again gives the same version."""
        return cast(dict[str, JSONValue], await self._send(calls.push(self.app, flow, document)))

    async def put_event(
        self,
        event: str,
        *,
        kind: str,
        flow: str,
        config: Mapping[str, JSONValue] | None = None,
        version: int | None = None,
    ) -> dict[str, JSONValue]:
        """Create or change an event: a way to start a flow."""
        call = calls.put_event(self.app, event, kind=kind, flow=flow, config=config, version=version)
        return cast(dict[str, JSONValue], await self._send(call))

    async def delete_event(self, event: str) -> None:
        """Remove an event; its runs stay."""
        await self._send(calls.delete_event(self.app, event))

    async def invoke(self, event: str, payload: JSONValue = None, **options: Unpack[InvokeOptions]) -> Answer:
        """Run an event's flow now and wait for its end."""
        answer = cast(Answer, await self._send(calls.invoke(self.app, event, payload, **options), timeout=_PATIENT))
        if answer["status"] not in LIVE:
            return answer
        run = await self.finished(answer["run_id"])  # it takes longer than the server waits
        return {"run_id": run["run_id"], "status": run["status"], "result": run["result"], "error": run["error"]}

    async def stream(
        self, event: str, payload: JSONValue = None, **options: Unpack[InvokeOptions]
    ) -> AsyncIterator[RunEvent]:
        """Run an event's flow now and give each of its events as it happens, up to `run_completed`."""
        last: RunEvent | None = None
        try:
            async for last in self._stream(calls.streamed(calls.invoke(self.app, event, payload, **options))):
                yield last
        except NoServer:
            if last is None:
                raise
        if last is not None and last["type"] != "run_completed":
            async for event_ in self.follow(last["run_id"], after=last["seq"]):
                yield event_

    async def invoke_async(
        self,
        event: str,
        payload: JSONValue = None,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[InvokeOptions],
    ) -> Accepted:
        """Queue a run of an event's flow; with the same idempotency key it is the same run, however often."""
        call = calls.invoke_async(self.app, event, payload, idempotency_key=idempotency_key, **options)
        return cast(Accepted, await self._send(call))

    async def run(self, run_id: str) -> Run:
        """Read a run, with its nodes."""
        return cast(Run, await self._send(calls.run(run_id)))

    async def runs(
        self, *, app: str | None = None, status: str | None = None, lane: str | None = None, limit: int = 100
    ) -> list[Run]:
        """List the newest runs."""
        pages = _Pages(limit)
        while pages.want:
            call = calls.runs(app=app, status=status, lane=lane, cursor=pages.cursor, limit=pages.want)
            pages.take(await self._send(call))
        return cast(list[Run], pages.items)

    async def events(self, run_id: str, *, after: int = 0, timeout: float = 0) -> list[RunEvent]:
        """List a run's events after number `after`; wait up to `timeout` seconds (at most 55) for the first of them."""
        call = calls.run_events(run_id, after=after, timeout=timeout)
        return cast(list[RunEvent], (await self._send(call, timeout=_PATIENT))["items"])

    async def follow(self, run_id: str, *, after: int = 0) -> AsyncIterator[RunEvent]:
        """Give each event of a run as it happens, up to `run_completed`, through any break of the connection."""
        # A server that never answered is an error at once; one that goes away may come back.
        pauses = iter(_RETRY_PAUSES if after else ())
        while True:
            with suppress(NoServer):
                over = False
                async for event in self._stream(calls.run_stream(run_id, after=after)):
                    yield event
                    after, pauses = event["seq"], iter(_RETRY_PAUSES)
                    over = event["type"] == "run_completed"  # a redriven run has completed once before
                if over:
                    return
            if (pause := next(pauses, None)) is None:
                raise NoServer(self.url)
            await asyncio.sleep(pause)

    async def finished(self, run_id: str) -> Run:
        """Wait for a run's end, and read it."""
        async for _ in self.follow(run_id):
            pass
        return await self.run(run_id)

    async def cancel(self, run_id: str) -> Run:
        """Ask a run to stop."""
        return cast(Run, await self._send(calls.on_run(run_id, "cancel")))

    async def metrics(self) -> str:
        """Read the server's figures, as text for Prometheus."""
        return str(await self._send(calls.metrics(), as_text=True))

    async def send(self, call: Call) -> Any:
        """Send any call of `calls.py`, and give the JSON of the answer."""
        return await self._send(call)

    async def _send(self, call: Call, *, timeout: httpx.Timeout = _TIMEOUT, as_text: bool = False) -> Any:
        try:
            answer = await self._http.send(_request(self._http.build_request, call, timeout))
        except httpx.HTTPError as failure:
            raise _explained(failure, self.url) from None
        return answers.read(answer.status_code, answer.content, as_text=as_text)

    async def _stream(self, call: Call) -> AsyncIterator[RunEvent]:
        reader = Reader()
        try:
            answer = await self._http.send(_request(self._http.build_request, call, _PATIENT), stream=True)
            try:
                if answer.status_code >= 400:
                    raise answers.refusal(answer.status_code, await answer.aread())
                async for line in answer.aiter_lines():
                    if (event := reader.line(line)) is not None:
                        yield event
            finally:
                await answer.aclose()
        except httpx.HTTPError as failure:
            raise _explained(failure, self.url) from None


class _Pages:
    """Collects pages until there are enough items."""

    #: What the server gives at most in one page.
    _PAGE = 1000

    def __init__(self, limit: int) -> None:
        self.items: list[Any] = []
        self.cursor: str | None = None
        self.want = min(limit, self._PAGE)
        self._limit = limit

    def take(self, page: dict[str, Any]) -> None:
        self.items += page["items"]
        self.cursor = page["next_cursor"]
        self.want = min(self._limit - len(self.items), self._PAGE) if self.cursor else 0


#: The home's admin key is for this machine's own server, and is never sent anywhere else.
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def _where(url: str | None, key: str | None, app: str | None) -> tuple[str, dict[str, str], str]:
    home = Home.of(os.environ)
    endpoint = home.endpoint()
    url = url or os.environ.get("FLO_URL") or (endpoint["api"] if endpoint else DEFAULT_URL)
    if not url.startswith(("http://", "https://")):
        url = f"http://{url}"
    key = key or os.environ.get("FLO_API_KEY") or (home.key() if httpx.URL(url).host in _LOOPBACK else None)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return url.rstrip("/"), headers, app or os.environ.get("FLO_APP") or "default"


def _request(build: Callable[..., httpx.Request], call: Call, timeout: httpx.Timeout) -> httpx.Request:
    headers, content = dict(call.headers), None
    if call.body is not None:
        headers["Content-Type"] = "application/json"
        content = _json(call.body)
    return build(call.method, call.path, params=dict(call.query), headers=headers, timeout=timeout, content=content)


def _json(body: JSONValue) -> bytes:
    try:
        try:
            return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except UnicodeEncodeError:  # half a surrogate pair: the server says where it is
            return json.dumps(body, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as problem:
        raise Mistake(
            f"what is to be sent is not JSON ({problem}): give objects, arrays, text, numbers, bools, null"
        ) from None


def _explained(failure: httpx.HTTPError, url: str) -> FloError:
    match failure:
        case httpx.TimeoutException() if not isinstance(failure, httpx.ConnectTimeout):
            return FloError(f"the server at {url} did not answer in time: see its log, then try again")
        case httpx.UnsupportedProtocol() | httpx.LocalProtocolError():
            return FloError(f"{url} can't be asked: {failure}")
        case _:
            return NoServer(url)
