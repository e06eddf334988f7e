"""An HTTP client for the inside of a box, whose only way out is the proxy of its worker."""

from __future__ import annotations

from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from workers.nodes.guarded import LIMITS, MAX_REDIRECTS, ForbiddenAddress
from workers.sandboxes.box.egress import NO_EGRESS

#: What the proxy marks its own refusals with: an answer of the host's may have the same status.
REFUSED = "flo-refused"


def open_proxied_client(proxy: str) -> httpx.AsyncClient:
    """Open the client that all runs of a box share. An empty `proxy` means that nothing may be reached."""
    return httpx.AsyncClient(
        transport=_ThroughProxy(proxy) if proxy else _Nowhere(),
        timeout=None,  # each node holds itself to its own limit
        max_redirects=MAX_REDIRECTS,
        trust_env=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        headers={"user-agent": "flo"},
    )


class _ThroughProxy(httpx.AsyncBaseTransport):
    """Tells the proxy's refusals from the hosts' answers."""

    def __init__(self, proxy: str) -> None:
        self._inner = httpx.AsyncHTTPTransport(proxy=httpx.Proxy(proxy), trust_env=False, limits=LIMITS)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            response = await self._inner.handle_async_request(request)
        except httpx.ProxyError as refusal:  # to CONNECT, worded by httpcore: "403 the reason"
            status, _, reason = str(refusal).partition(" ")
            raise _error(request, int(status) if status.isdigit() else 0, reason) from None
        if REFUSED in response.headers:
            reason = (await response.aread()).decode(errors="replace").strip().removeprefix("flo: ")
            await response.aclose()
            raise _error(request, response.status_code, reason)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Nowhere(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise ForbiddenAddress(request.url.host, NO_EGRESS.refusal(request.url.host))


def _error(request: httpx.Request, status: int, reason: str) -> Exception:
    if status == 403:
        return ForbiddenAddress(request.url.host, reason)
    return httpx.ConnectError(reason or "the proxy refused", request=request)
