"""browser.render: a real Chromium in a real box."""

from __future__ import annotations

import asyncio
import base64
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from process_flows import run_node

from schemas.catalog import load_catalog
from schemas.errors import Invalid
from schemas.outcome import ErrorKind
from schemas.settings import ExecutionMode
from schemas.validation import read_document
from tests.servers import missing
from workers.nodes import browser
from workers.nodes.browser import text_of
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.egress import NO_EGRESS, PUBLIC_EGRESS

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = (
    "<title>t</title><style>p {}</style><h1>Hello</h1><p>one <b>two</b></p><script>document.body.append(6 * 7)</script>"
)


@pytest.fixture(autouse=True)
def chromium() -> None:
    if shutil.which("chromium") is None:
        missing("Chromium", "apt-get install chromium")


async def test_scripts_run_before_the_page_is_given(place: NamespaceBox) -> None:
    result = (await run_node(place, "browser.render", {"html": PAGE})).result

    assert "<h1>Hello</h1>" in result["output"]
    assert result["output"].endswith("42</body></html>")
    assert result["output"] == result["dom"] == result["stdout"]
    assert result["duration_ms"] > 0


async def test_text_is_what_a_reader_sees(place: NamespaceBox) -> None:
    result = (await run_node(place, "browser.render", {"mode": "text"}, {"html": PAGE})).result

    assert result["output"] == "Hello\none two\n42"


async def test_a_screenshot_is_a_png_of_the_window(place: NamespaceBox) -> None:
    config = {"html": PAGE, "mode": "screenshot", "width": 320, "height": 200}

    picture = base64.b64decode((await run_node(place, "browser.render", config)).result["output"])

    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert (int.from_bytes(picture[16:20], "big"), int.from_bytes(picture[20:24], "big")) == (320, 200)


async def test_time_passes_for_the_page_and_not_for_us(place: NamespaceBox) -> None:
    html = "<p id=p>early</p><script>setTimeout(() => { p.textContent = 'late' }, 60000)</script>"

    result = (await run_node(place, "browser.render", {"html": html, "wait_ms": 90_000, "mode": "text"})).result

    assert result["output"] == "late"


async def test_a_page_of_this_machine_is_out_of_reach(place: NamespaceBox) -> None:
    async with _site() as (url, visits):
        error = (await run_node(place, "browser.render", {"url": url}, egress=PUBLIC_EGRESS)).error

    assert error.kind is ErrorKind.FORBIDDEN
    assert "not a public address" in error.message
    assert visits == []


async def test_an_app_that_may_connect_to_nothing_loads_no_page(place: NamespaceBox) -> None:
    error = (await run_node(place, "browser.render", {"url": "http://example.invalid/"}, egress=NO_EGRESS)).error

    assert error.kind is ErrorKind.UPSTREAM
    assert "could not be loaded" in error.message


async def test_a_page_reaches_nothing_by_its_scripts_either(place: NamespaceBox) -> None:
    async with _site() as (url, visits):
        html = f"<img src='{url}'><iframe src='{url}'></iframe><script>fetch('{url}').catch(() => 0)</script>here"
        result = (await run_node(place, "browser.render", {"html": html}, egress=PUBLIC_EGRESS)).result

    assert "here" in result["output"]
    assert visits == []


async def test_a_page_finds_no_file_of_the_worker(place: NamespaceBox) -> None:
    html = "<iframe src='file:///etc/hostname'></iframe><iframe src='file:///root'></iframe>"

    ran = await run_node(place, "browser.render", {"html": html, "mode": "text"})

    assert ran.result["output"] == ""


@pytest.mark.parametrize("payload", [{}, {"url": "http://a.example", "html": "<p>"}, {"url": "file:///etc/passwd"}])
async def test_which_page_is_meant_must_be_clear(place: NamespaceBox, payload: Any) -> None:
    error = (await run_node(place, "browser.render", {}, payload)).error

    assert error.kind is ErrorKind.INVALID_INPUT


async def test_a_page_that_never_ends_is_stopped(place: NamespaceBox) -> None:
    error = (await run_node(place, "browser.render", {"html": "<script>for (;;);</script>", "timeout": 3})).error

    assert error.kind is ErrorKind.TIMED_OUT
    assert "timeout" in error.message


async def test_a_worker_without_chromium_says_how_to_get_it(
    place: NamespaceBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser, "_SCRIPT", browser._SCRIPT.replace("chromium", "chromium-that-is-not-there"))

    error = (await run_node(place, "browser.render", {"html": PAGE})).error

    assert "apt-get install chromium" in error.message


async def test_isolates_alone_have_no_place_for_a_browser() -> None:
    raw = {"name": "one", "nodes": [{"id": "it", "node_type": "browser.render", "config": {"html": "<p>"}}]}
    catalog = load_catalog(ExecutionMode.SANDBOX_CODE_ONLY)

    with pytest.raises(Invalid, match="not allowed in execution mode SANDBOX_CODE_ONLY"):
        read_document(raw, catalog=catalog, max_inline_http=timedelta(seconds=300))


async def test_what_is_hidden_is_no_text() -> None:
    html = "<head><title>no</title></head><body>a<br>b <i>c</i><noscript>no</noscript><template>no</template></body>"

    assert text_of(html) == "a\nb c"


@asynccontextmanager
async def _site() -> AsyncIterator[tuple[str, list[bytes]]]:
    """A site of this machine that notes its visitors."""
    visits: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visits.append(await reader.readline())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", visits
