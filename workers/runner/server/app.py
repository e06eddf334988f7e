"""The routes of an executor. Every one but /health and /metrics needs the token of its attempt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dispatch.run_tokens import HoldRight, RunRight
from schemas.errors import FloError, Refused, Unavailable
from schemas.json import JSONObject, dumps, loads
from workers.runner.channel import line_of
from workers.runner.server.clock import HEADER, AnotherClock, Clock
from workers.runner.server.flight import Flight
from workers.runner.server.flights import Fenced, Flights, Full
from workers.runner.server.trust import Trust
from workers.runner.server.words import NDJSON, Held, Order

#: Seconds after which a worker may try an executor that is full.
RETRY_AFTER = 1


class NotSigned(FloError):
    """The request carries no token that is good here."""


class Malformed(FloError):
    """The body can't be read."""


class Unknown(FloError):
    """No such attempt is, or was lately, at this executor."""


_STATUS: dict[type[FloError], HTTPStatus] = {
    NotSigned: HTTPStatus.UNAUTHORIZED,
    Refused: HTTPStatus.FORBIDDEN,
    Unknown: HTTPStatus.NOT_FOUND,
    Fenced: HTTPStatus.CONFLICT,
    Malformed: HTTPStatus.UNPROCESSABLE_ENTITY,
    AnotherClock: HTTPStatus.PRECONDITION_FAILED,
    Full: HTTPStatus.SERVICE_UNAVAILABLE,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


class Routes:
    """What is done with each request."""

    def __init__(self, flights: Flights, trust: Trust | None, *, about: JSONObject) -> None:
        """`about` is what /health says besides how many runs are here."""
        self._flights = flights
        self._trust = trust
        self._about = about
        self._registry = CollectorRegistry()
        running = Gauge("flo_executor_runs", "Attempts under way", registry=self._registry)
        running.set_function(lambda: flights.running)
        most = Gauge("flo_executor_capacity", "Attempts that may be under way", registry=self._registry)
        most.set_function(lambda: flights.capacity)

    def app(self) -> Starlette:
        attempt = "/execute/{run}/{attempt:int}"
        return Starlette(
            routes=[
                Route("/execute/stream", self.stream, methods=["POST"]),
                Route("/execute", self.execute, methods=["POST"]),
                Route("/execute/sse", self.sse, methods=["POST"]),
                Route(attempt, self.ask, methods=["GET"]),
                Route(attempt, self.stop, methods=["DELETE"]),
                Route(f"{attempt}/saved", self.saved, methods=["POST"]),
                Route("/hold", self.hold, methods=["POST"]),
                Route("/health", self.health),
                Route("/metrics", self.metrics),
            ],
            exception_handlers={FloError: _problem},
            middleware=[Middleware(_ShowsClock, clock=self._flights.clock)],
        )

    async def execute(self, request: Request) -> Response:
        """Execute, and answer with all of it when it is over."""
        flight = await self._begin(request)
        lines = [loads(line) async for chunk in flight.follow(0) for line in chunk.splitlines()]
        events = [line for line in lines if line["say"] == "event"]
        return _json({**flight.state(), "events": events})

    async def stream(self, request: Request) -> Response:
        flight = await self._begin(request)
        return StreamingResponse(flight.follow(0), media_type=NDJSON)

    async def sse(self, request: Request) -> Response:
        flight = await self._begin(request)
        return StreamingResponse(_as_sse(flight), media_type="text/event-stream")

    async def ask(self, request: Request) -> Response:
        """Tell how an attempt stands, or stream what came after `?after=`."""
        flight = await self._flight(request)
        if request.headers.get("accept") == NDJSON:
            return StreamingResponse(flight.follow(_number(request, "after")), media_type=NDJSON)
        return _json(flight.state())

    async def saved(self, request: Request) -> Response:
        flight = await self._flight(request)
        flight.saved(_number(request, "seq"))
        return _json({"seq": _number(request, "seq")})

    async def stop(self, request: Request) -> Response:
        """End an attempt; the answer confirms that nothing of it is left."""
        right = await self._right_in_path(request)
        flight = await self._flights.stop(right.run_id, right.attempt)
        if flight is None:
            return _json({"run_id": right.run_id, "attempt": right.attempt, "status": "unknown"})
        return _json(flight.state())

    async def hold(self, request: Request) -> Response:
        if self._trust is None:
            _not_from_a_browser(request)
        elif not isinstance(await self._read(request, self._trust), HoldRight):
            raise Refused("a token of one attempt holds nothing; send the worker's own")
        try:
            held = Held.model_validate_json(await request.body())
        except ValidationError as mistakes:
            raise Malformed(f"this is not what a worker holds: {_first(mistakes)}") from None
        return _json({"unknown": [list(one) for one in self._flights.hold(held)]})

    async def health(self, request: Request) -> Response:
        flights = self._flights
        said: JSONObject = {**self._about, "running": flights.running, "capacity": flights.capacity}
        status = HTTPStatus.SERVICE_UNAVAILABLE if flights.closing else HTTPStatus.OK
        return _json({"status": "stopping" if flights.closing else "ok", **said}, status)

    async def metrics(self, request: Request) -> Response:
        return Response(generate_latest(self._registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _begin(self, request: Request) -> Flight:
        if self._trust is None:
            _not_from_a_browser(request)
        right = None if self._trust is None else await self._run_right(request, self._trust)
        body = await request.body()
        try:
            order = Order.model_validate(loads(body))
            if right is not None and (right.run_id, right.app, right.attempt) != (
                order.run_id, order.app, order.attempt
            ):  # fmt: skip
                raise Refused(
                    f"this token is for attempt {right.attempt} of run {right.run_id}, not for what is ordered"
                )
            return self._flights.begin(order)
        except ValidationError as mistakes:
            raise Malformed(f"this is no order: {_first(mistakes)}") from None
        except (ValueError, LookupError, TypeError) as mistake:
            raise Malformed(f"this is no order: {mistake}") from None

    async def _flight(self, request: Request) -> Flight:
        right = await self._right_in_path(request)
        flight = self._flights.find(right.run_id, right.attempt)
        if flight is None:
            raise Unknown(f"attempt {right.attempt} of run {right.run_id} is not here, and was not lately")
        return flight

    async def _right_in_path(self, request: Request) -> RunRight:
        run_id, attempt = request.path_params["run"], request.path_params["attempt"]
        if self._trust is None:
            _not_from_a_browser(request)
            return RunRight(run_id=run_id, app="", attempt=attempt)
        right = await self._run_right(request, self._trust)
        if (right.run_id, right.attempt) != (run_id, attempt):
            raise Refused(
                f"this token is for attempt {right.attempt} of run {right.run_id}, not for {run_id}/{attempt}"
            )
        return right

    async def _run_right(self, request: Request, trust: Trust) -> RunRight:
        right = await self._read(request, trust)
        if not isinstance(right, RunRight):
            raise Refused("a worker's own token is good for POST /hold; send the token of the attempt")
        return right

    async def _read(self, request: Request, trust: Trust) -> RunRight | HoldRight:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        right = await trust.read(token.strip()) if scheme.lower() == "bearer" else None
        if right is None:
            raise NotSigned("the request carries no token that is good here: Authorization: Bearer <run token>")
        return right


class _ShowsClock:
    """Says in every answer what time it is here."""

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def shown(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = (HEADER.encode(), self._clock.told().encode())
                message = {**message, "headers": [*message["headers"], told]}
            await send(message)

        await self._app(scope, receive, shown)


async def _as_sse(flight: Flight) -> AsyncIterator[bytes]:
    async for chunk in flight.follow(0):
        for line in chunk.splitlines():
            said = loads(line)
            number = f"id: {said['seq']}\n" if "seq" in said else ""
            yield f"event: {said['say']}\n{number}data: {line.decode()}\n\n".encode()


def _not_from_a_browser(request: Request) -> None:
    """Raise Refused for what a page made somebody's browser send: it reaches loopback, too."""
    if "origin" in request.headers:
        raise Refused("an executor without FLO_URL and FLO_EXECUTOR_KEY takes nothing from browsers")


def _number(request: Request, name: str) -> int:
    given = request.query_params.get(name, "0")
    if not given.isascii() or not given.isdigit():
        raise Malformed(f"?{name}= is {given!r}; send the number of a line")
    return int(given)


def _first(mistakes: ValidationError) -> str:
    first = mistakes.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or '$'}: {first['msg']}"


def _json(value: JSONObject, status: int = HTTPStatus.OK) -> Response:
    return Response(line_of(value), int(status), media_type="application/json")


async def _problem(request: Request, error: Exception) -> Response:
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), HTTPStatus.BAD_REQUEST)
    problem = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": str(error)}
    headers = {"Retry-After": str(RETRY_AFTER)} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return Response(dumps(problem), int(status), headers=headers, media_type="application/problem+json")
