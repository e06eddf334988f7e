"""Who may use FlowEngine's API, on whose behalf, and how its errors look."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection
from starlette.responses import Response

from scheduler.auth import Caller, Scope
from scheduler.problem import response_of
from scheduler.spine import Spine, spine_of
from scheduler.views import answer
from schemas.errors import FloError, Invalid, Refused
from schemas.settings import Compatibility

#: Where workflows live unless a key says otherwise.
DEFAULT_APP = "default"

_OPEN = Caller("flowengine-open", DEFAULT_APP, frozenset({Scope.READ, Scope.WRITE, Scope.INVOKE}))
#: A proxy adds one of these: whoever is behind it is not of this machine.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
#: Headers of an error answer that clients act upon, whatever its body looks like.
_KEPT = ("WWW-Authenticate", "Retry-After", "Connection")


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that was let in."""

    spine: Spine
    app: str


async def enter(connection: HTTPConnection, scope: Scope, *, key: str | None = None) -> Visit:
    """Let a request in: by its key; without one only where FLO_COMPAT_FLOWENGINE=open, and from this machine.

    Raises Unauthenticated or Refused.
    """
    spine = spine_of(connection)
    keyless = key is None and "authorization" not in connection.headers
    if keyless and spine.settings.compat_flowengine is Compatibility.OPEN:
        check_is_local(connection)
        caller = _OPEN
    else:
        caller = await (spine.gate.admit_key(key) if key is not None else spine.gate.admit(connection))
    app = caller.app or connection.query_params.get("app") or DEFAULT_APP
    caller.require(scope, app=app)
    return Visit(spine, app)


def check_is_local(connection: HTTPConnection) -> None:
    """Raise Refused unless the request was made on this machine, and not by some web page open in its browser."""
    server = (connection.scope.get("server") or ("",))[0]
    client = connection.client.host if connection.client else ""
    origin = urlsplit(connection.headers.get("origin", "http://localhost")).hostname or ""
    here = all(_is_loopback(one) for one in (server, client, connection.url.hostname or "", origin))
    if not here or any(name in connection.headers for name in _FORWARDED):
        raise Refused(
            "FLO_COMPAT_FLOWENGINE=open takes requests without a key from this machine alone, at 127.0.0.1 or "
            "localhost and not through a proxy; send Authorization: Bearer <key>"
        )


class FlowEngineRoute(APIRoute):
    """A route whose errors are `{"error": ...}`, as FlowEngine's are."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def worded(request: Request) -> Response:
            try:
                return await handle(request)
            except FloError as error:
                told = response_of(error)
                # FlowEngine has one word for all that is wrong with a request.
                status = 400 if isinstance(error, Invalid) else told.status_code
                kept = {
                    name: told.headers[name] for name in ("WWW-Authenticate", "Retry-After") if name in told.headers
                }
                return answer({"error": str(error)}, status=status, headers=kept)

        return worded


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
