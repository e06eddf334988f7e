"""http.request: one request, one response."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import orjson

from schemas.json import JSONObject, JSONValue, dumps, loads_foreign, whole
from schemas.nodes.http import DEFAULT_HTTP_TIMEOUT, HttpConfig
from schemas.outcome import ErrorKind
from workers.nodes.guarded import MAX_REDIRECTS, ForbiddenAddress
from workers.nodes.node import NodeCall, node_error, too_long

_MAY_ALLOW = (
    "the operator decides what flows may call: FLO_EGRESS and the app's own limits name hosts, "
    "FLO_ALLOW_PRIVATE_NETWORK=true allows private addresses"
)


class HttpRequest:
    """Send the request; any status is a success unless `fail_on_status` says otherwise."""

    async def run(self, call: NodeCall[HttpConfig]) -> Mapping[str, JSONValue]:
        limit = _limit(call)
        async with _place(call):
            try:
                async with asyncio.timeout(limit.total_seconds()):
                    response, body = await _exchange(call, _request(call))
            except TimeoutError:
                raise too_long(limit, raise_with="timeout_ms in its config") from None
        return _outputs(call.config, response, body)


@asynccontextmanager
async def _place(call: NodeCall[HttpConfig]) -> AsyncIterator[None]:
    """Hold one of the worker's places for requests; the wait for one, which the log shows, is not in the limit."""
    places = call.tools.http_places
    if places.locked():
        call.log("info", "waits for a place: as many requests as may be are on their way now (FLO_MAX_INLINE_HTTP)")
    async with places:
        yield


def _limit(call: NodeCall[HttpConfig]) -> timedelta:
    """Give the node's limit. The cap was checked at push, but may have been lowered since."""
    config, cap = call.config, call.tools.inline_http_cap
    if config.execution_mode != "inline":
        return config.limit or DEFAULT_HTTP_TIMEOUT
    if config.limit is not None and config.limit > cap:
        raise node_error(
            ErrorKind.FORBIDDEN,
            f"timeout is {config.limit.total_seconds():g} s, but inline HTTP nodes are capped at "
            f'{cap.total_seconds():g} s here; set execution_mode: "sandbox" to lift the cap',
        )
    return config.limit or min(DEFAULT_HTTP_TIMEOUT, cap)


def _request(call: NodeCall[HttpConfig]) -> httpx.Request:
    given = call.inputs
    headers = {name.lower(): _header(name, value) for name, value in _object(given.get("headers")).items()}
    # What the other side needs to recognise a request that was sent again after a crash.
    headers.setdefault("flo-run", call.tools.run_id)
    headers.setdefault("flo-attempt", str(call.tools.attempt))
    content: bytes | None = None
    if call.config.method not in ("GET", "HEAD"):
        if "json" in given or ("body" in given and not isinstance(given["body"], str)):
            content = dumps(given["json"] if "json" in given else given["body"]).encode()
            headers.setdefault("content-type", "application/json")
        elif "body" in given:
            content = str(given["body"]).encode()
            headers.setdefault("content-type", "text/plain; charset=utf-8")
    try:
        url = httpx.URL(str(given["url"]))
        request = call.tools.http.build_request(
            call.config.method, url, headers=headers, content=content, extensions={"egress": call.tools.egress}
        )
    except (httpx.InvalidURL, UnicodeError, ValueError) as mistake:
        raise node_error(ErrorKind.INVALID_INPUT, f'input "url" is not an address: {mistake}') from None
    if url.scheme not in ("http", "https") or not url.host:
        raise node_error(
            ErrorKind.INVALID_INPUT,
            f'input "url" must start with http:// or https:// and name a host; given scheme "{url.scheme}"',
        )
    return request


def _object(value: JSONValue) -> JSONObject:
    return value if isinstance(value, dict) else {}


def _header(name: str, value: JSONValue) -> str:
    text = value if isinstance(value, str) else dumps(value)
    if any(character in name + text for character in "\r\n\0"):
        raise node_error(ErrorKind.INVALID_INPUT, f'header "{name.strip()}" must not contain a line break')
    return text


async def _exchange(call: NodeCall[HttpConfig], request: httpx.Request) -> tuple[httpx.Response, bytes]:
    host = request.url.host
    try:
        response = await call.tools.http.send(request, stream=True, follow_redirects=call.config.follow_redirects)
        try:
            return response, await _read(response, call.config.max_response_bytes)
        finally:
            await response.aclose()
    except ForbiddenAddress as refused:
        raise node_error(ErrorKind.FORBIDDEN, f"{refused}; {_MAY_ALLOW}", host=refused.host) from None
    except httpx.TooManyRedirects:
        raise node_error(ErrorKind.UPSTREAM, f"{host} redirected more than {MAX_REDIRECTS} times") from None
    except httpx.UnsupportedProtocol:
        raise node_error(ErrorKind.FORBIDDEN, f"{host} redirected to an address that is not http or https") from None
    except httpx.LocalProtocolError as mistake:
        raise node_error(ErrorKind.INVALID_INPUT, f"the request can't be sent: {mistake}") from None
    except (httpx.HTTPError, httpx.InvalidURL) as failure:
        what = str(failure) or type(failure).__name__
        raise node_error(ErrorKind.UPSTREAM, f"{host} did not answer: {what}") from None


async def _read(response: httpx.Response, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > limit:
            raise node_error(
                ErrorKind.OUTPUT_EXCEEDED,
                f"the response is bigger than {limit:,} bytes; raise max_response_bytes or ask for less",
                limit=limit,
                raise_with="max_response_bytes",
            )
        parts.append(part)
    return b"".join(parts)


def _outputs(config: HttpConfig, response: httpx.Response, body: bytes) -> Mapping[str, JSONValue]:
    text = _text(body, response.charset_encoding)
    if config.fail_on_status and response.status_code >= 400:
        raise node_error(
            ErrorKind.UPSTREAM,
            f"{response.url.host} answered {response.status_code} {response.reason_phrase}, and fail_on_status is set",
            status=response.status_code,
            body=text[:1000],
        )
    headers: JSONObject = dict(response.headers.items())
    outputs: JSONObject = {"status": response.status_code, "body": text, "headers": headers}
    with contextlib.suppress(orjson.JSONDecodeError):
        outputs["json"] = loads_foreign(body)
    return outputs


def _text(body: bytes, charset: str | None) -> str:
    try:
        return whole(body.decode(charset or "utf-8", errors="replace"))
    except (UnicodeError, LookupError):  # the server names a charset that does not exist, or that can't replace
        return body.decode("utf-8", errors="replace")
