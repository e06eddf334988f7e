"""The outermost layers around the routes: body limit, and the last catch. Pure ASGI, as streams pass through them."""

from __future__ import annotations

import secrets
import time

import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dispatch.store.session import is_outage
from scheduler.problem import RETRY_AFTER, TooLarge, problem_response, response_of
from scheduler.spine import Spine

log = structlog.get_logger()


class Edge:
    """Measures each request, and turns what no route expected into a problem document with an id to look up."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 0

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        except ClientDisconnect:
            log.debug("http.hung_up", route=_route(scope))  # in the middle of its own body: there is no one to answer
        except Exception as error:  # the edge of the process: nothing may reach the server's own page
            if status:
                log.error("http.broke_off", route=_route(scope), error=repr(error), exc_info=error)
                raise
            await _explain(error, scope, receive, note_status)
        finally:
            spine: Spine | None = getattr(scope["app"].state, "spine", None)
            if spine is not None and status:
                route = _route(scope)
                spine.figures.requests.labels(scope["method"], route, status).inc()
                spine.figures.durations.labels(route).observe(time.perf_counter() - begun)


class BodyLimit:
    """Refuses bodies over the limit: at once when their length is announced, else at the first byte too many."""

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._most:
            await response_of(self._too_large(f"{int(announced):,}"))(scope, receive, send)
            return
        seen = 0

        async def count() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._most:
                raise self._too_large(f"more than {self._most:,}")
            return message

        await self._app(scope, count, send)

    def _too_large(self, given: str) -> TooLarge:
        return TooLarge(
            f"the body is {given} bytes, and this server takes at most {self._most:,}; send the data to a store of its "
            "own and its address here, or have FLO_MAX_BODY_BYTES raised",
            headers={"Connection": "close"},
        )


async def _explain(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    if is_outage(error):
        log.warning("http.outage", route=_route(scope), error=str(error).splitlines()[0] if str(error) else repr(error))
        response = problem_response(
            503,
            "the database does not answer at the moment; nothing was changed, try again shortly (/readyz says more)",
            headers={"Retry-After": str(RETRY_AFTER)},
        )
    else:
        error_id = f"err_{secrets.token_hex(8)}"
        log.error("http.failed", error_id=error_id, route=_route(scope), error=repr(error), exc_info=error)
        response = problem_response(
            500,
            f"something went wrong inside Flo; its log has the details under {error_id}",
            members={"error_id": error_id},
        )
    await response(scope, receive, send)


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", "unmatched")
