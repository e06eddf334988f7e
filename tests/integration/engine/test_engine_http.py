"""http.request against a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from loopback_site import Site

from schemas.catalog import load_catalog
from schemas.json import JSONValue
from schemas.outcome import ErrorKind, Failed, Outcome, Succeeded
from schemas.validation import read_document
from workers.engine.drive import run_flow
from workers.engine.sink import MemorySink
from workers.nodes.guarded import open_client
from workers.nodes.node import NodeTools

Call = Callable[..., Coroutine[Any, Any, Outcome]]


class NoCode:
    async def run(self, order: Any, on_log: Any) -> Any:
        raise AssertionError("no code in these flows")

    async def aclose(self) -> None:
        return


@pytest.fixture
async def tools() -> AsyncIterator[NodeTools]:
    async with open_client(allow_private_network=True) as http:
        yield NodeTools(code=NoCode(), http=http, app="app", run_id="run", attempt=1)


@pytest.fixture
async def guarded(tools: NodeTools) -> AsyncIterator[NodeTools]:
    async with open_client(allow_private_network=False) as http:
        yield replace(tools, http=http)


async def call(tools: NodeTools, payload: JSONValue = None, **config: Any) -> Outcome:
    raw = {"name": "x", "nodes": [{"id": "fetch", "node_type": "http.request", "config": config}]}
    document, _ = read_document(raw, catalog=load_catalog(), max_inline_http=timedelta(seconds=300))
    return await run_flow(document, payload, tools=tools, events=MemorySink())


async def outputs_of(tools: NodeTools, payload: JSONValue = None, **config: Any) -> dict[str, Any]:
    outcome = await call(tools, payload, **config)
    assert isinstance(outcome, Succeeded), outcome
    assert isinstance(outcome.result, dict)
    return outcome.result


async def error_of(tools: NodeTools, payload: JSONValue = None, **config: Any) -> tuple[ErrorKind, str]:
    outcome = await call(tools, payload, **config)
    assert isinstance(outcome, Failed), outcome
    assert outcome.error.node_id == "fetch"
    return outcome.error.kind, outcome.error.message


async def test_a_response_gives_its_status_body_headers_and_json(tools: NodeTools, site: Site) -> None:
    outputs = await outputs_of(tools, {"url": f"{site.url}/json/"})

    assert outputs["status"] == 200
    assert outputs["body"] == '{"id":1,"name":"one"}'
    assert outputs["json"] == {"id": 1, "name": "one"}
    assert outputs["headers"]["content-type"] == "application/json"


async def test_a_body_that_is_no_json_gives_no_json_port(tools: NodeTools, site: Site) -> None:
    outputs = await outputs_of(tools, url=f"{site.url}/text/")

    assert outputs["body"] == "grüße"
    assert "json" not in outputs


async def test_a_charset_that_does_not_exist_is_read_as_utf_8(tools: NodeTools, site: Site) -> None:
    assert (await outputs_of(tools, url=f"{site.url}/odd/"))["body"] == "grüße"


async def test_any_status_is_a_success(tools: NodeTools, site: Site) -> None:
    assert (await outputs_of(tools, url=f"{site.url}/status/404"))["status"] == 404


async def test_a_bad_status_fails_the_node_when_that_is_asked_for(tools: NodeTools, site: Site) -> None:
    kind, message = await error_of(tools, url=f"{site.url}/status/500", fail_on_status=True)

    assert kind is ErrorKind.UPSTREAM
    assert message == "127.0.0.1 answered 500 Internal Server Error, and fail_on_status is set"


@pytest.mark.parametrize(
    ("config", "body", "content_type"),
    [
        ({"json": {"a": 1}}, '{"a":1}', "application/json"),
        ({"json": "text"}, '"text"', "application/json"),
        ({"body": "text"}, "text", "text/plain; charset=utf-8"),
        ({"body": {"a": 1}}, '{"a":1}', "application/json"),
        ({"body": "a=b", "headers": {"Content-Type": "x/y"}}, "a=b", "x/y"),
    ],
)
async def test_a_body_is_sent_as_text_or_as_json(
    tools: NodeTools, site: Site, config: dict[str, Any], body: str, content_type: str
) -> None:
    await outputs_of(tools, url=f"{site.url}/json/", method="post", **config)

    assert (site.last["method"], site.last["body"]) == ("POST", body)
    assert site.last["headers"]["content-type"] == content_type


async def test_a_get_request_sends_no_body_that_the_payload_happens_to_hold(tools: NodeTools, site: Site) -> None:
    await outputs_of(tools, {"url": f"{site.url}/json/", "body": "x"})

    assert site.last["body"] == ""


async def test_redirects_are_followed_unless_told_otherwise(tools: NodeTools, site: Site) -> None:
    followed = await outputs_of(tools, url=f"{site.url}/to//json/")
    kept = await outputs_of(tools, url=f"{site.url}/to//json/", follow_redirects=False)

    assert (followed["status"], kept["status"]) == (200, 302)


async def test_endless_redirects_end(tools: NodeTools, site: Site) -> None:
    assert await error_of(tools, url=f"{site.url}/loop/") == (
        ErrorKind.UPSTREAM,
        "127.0.0.1 redirected more than 10 times",
    )


async def test_a_redirect_to_a_file_is_refused(tools: NodeTools, site: Site) -> None:
    kind, message = await error_of(tools, url=f"{site.url}/to/file:///etc/passwd")

    assert kind is ErrorKind.FORBIDDEN
    assert message == "127.0.0.1 redirected to an address that is not http or https"


@pytest.mark.parametrize("page", ["big/2000", "bomb/100000"])
async def test_a_response_that_is_too_big_is_cut_off(tools: NodeTools, site: Site, page: str) -> None:
    kind, message = await error_of(tools, url=f"{site.url}/{page}", max_response_bytes=1000)

    assert kind is ErrorKind.OUTPUT_EXCEEDED
    assert "bigger than 1,000 bytes; raise max_response_bytes" in message


async def test_a_server_that_never_answers_runs_into_the_limit(tools: NodeTools, site: Site) -> None:
    kind, message = await error_of(tools, url=f"{site.url}/hang/", timeout_ms=50)

    assert kind is ErrorKind.TIMED_OUT
    assert message == "took longer than its limit of 0.05 s; raise timeout_ms in its config if it needs more"


async def test_no_server_at_all_is_an_upstream_error(tools: NodeTools) -> None:
    kind, message = await error_of(tools, url="http://127.0.0.1:1/")

    assert kind is ErrorKind.UPSTREAM
    assert message.startswith("127.0.0.1 did not answer:")


async def test_the_cap_holds_at_run_time_too(tools: NodeTools, site: Site) -> None:
    lowered = replace(tools, inline_http_cap=timedelta(seconds=1))

    kind, message = await error_of(lowered, url=f"{site.url}/json/", timeout=5)

    assert kind is ErrorKind.FORBIDDEN
    assert "timeout is 5 s, but inline HTTP nodes are capped at 1 s here" in message


@pytest.mark.parametrize("url", ["ftp://example.com/", "file:///etc/passwd", "example.com", "http://"])
async def test_only_http_addresses_are_addresses(tools: NodeTools, url: str) -> None:
    kind, message = await error_of(tools, {"url": url})

    assert kind is ErrorKind.INVALID_INPUT
    assert message.startswith('input "url"')


async def test_a_header_can_not_smuggle_in_another(tools: NodeTools, site: Site) -> None:
    kind, message = await error_of(tools, url=f"{site.url}/json/", headers={"x": "a\r\nhost: b"})

    assert kind is ErrorKind.INVALID_INPUT
    assert 'header "x" must not contain a line break' in message
    assert site.count == 0


async def test_cookies_do_not_pass_from_one_run_to_another(tools: NodeTools, site: Site) -> None:
    await outputs_of(tools, url=f"{site.url}/cookie/")
    await outputs_of(tools, url=f"{site.url}/json/")

    assert "cookie" not in site.last["headers"]


async def test_a_flow_can_not_reach_the_operators_own_machine(guarded: NodeTools, site: Site) -> None:
    kind, message = await error_of(guarded, url=f"{site.url}/json/")

    assert kind is ErrorKind.FORBIDDEN
    assert message == (
        "127.0.0.1 is 127.0.0.1, which is not a public address; the operator decides what flows may call: FLO_EGRESS "
        "and the app's own limits name hosts, FLO_ALLOW_PRIVATE_NETWORK=true allows private addresses"
    )
    assert site.count == 0


async def test_a_redirect_is_checked_like_the_first_address(site: Site, tools: NodeTools) -> None:
    async with open_client(allow_private_network=False, backend=_Elsewhere(site)) as http:
        outcome = await call(replace(tools, http=http), url=f"http://1.1.1.1/to/{site.url}/json/")

    assert isinstance(outcome, Failed)
    assert outcome.error.kind is ErrorKind.FORBIDDEN
    assert site.count == 1


class _Elsewhere:
    """Beneath the guard: takes every public address to the test's own server, as there is no internet here."""

    def __init__(self, site: Site) -> None:
        import httpcore

        self._inner = httpcore.AnyIOBackend()
        self._port = int(site.url.rpartition(":")[2])

    async def connect_tcp(self, host: str, port: int, *more: Any) -> Any:
        return await self._inner.connect_tcp("127.0.0.1", self._port, *more)
