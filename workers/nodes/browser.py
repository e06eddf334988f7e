"""browser.render: headless Chromium in a box of its own, which is its sandbox and its only way out."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import urlsplit

from schemas.json import JSONObject, JSONValue
from schemas.nodes.browser import BrowserConfig
from schemas.outcome import ErrorKind
from workers.nodes.boxed import limits_of, milliseconds, run_command
from workers.nodes.node import NodeCall, NodeError, node_error
from workers.sandboxes.box.base import CommandOrder, Exited

_PAGE, _PICTURE, _FONTS = "page.html", "page.png", "fonts.conf"
#: Exit code of the script below when there is no browser.
_NOT_THERE = 127

#: Chromium's own sandbox would need namespaces, which no box gives: the box is the sandbox. The wrapper in /usr/bin
#: wants an /etc that boxes don't have, so the program itself comes first. Even loopback goes through the proxy.
_SCRIPT = f"""
for browser in /usr/lib/chromium/chromium /usr/lib/chromium-browser/chromium-browser /usr/bin/chromium; do
    [ -x "$browser" ] && break
done
[ -x "$browser" ] || exit {_NOT_THERE}
profile=$(mktemp -d /tmp/chromium.XXXXXX) && trap 'rm -rf "$profile"' EXIT
url=$1 && shift
FONTCONFIG_FILE="$PWD/{_FONTS}" HOME="$profile" "$browser" --headless --no-sandbox --disable-gpu \\
    --disable-dev-shm-usage --disable-background-networking --disable-component-update --disable-sync --no-first-run \\
    --user-data-dir="$profile" ${{HTTP_PROXY:+--proxy-server="$HTTP_PROXY"}} --proxy-bypass-list='<-loopback>' \\
    --force-webrtc-ip-handling-policy=disable_non_proxied_udp "$@" --dump-dom "${{url:-file://$PWD/{_PAGE}}}"
"""
_FONTS_CONF = b"<fontconfig><dir>/usr/share/fonts</dir><cachedir>/tmp/fonts</cachedir></fontconfig>"

#: Chromium reserves address space by the terabyte and uses little of it, in MB; and files by the hundred.
_RESERVED_MB = 1 << 23
_OPEN_FILES = 4096

#: How Chromium shows the one line with which the box's proxy refuses a plain HTTP request.
_REFUSAL = re.compile(rb"<body><pre[^>]*>flo: ([^<\n]{1,500})\n?</pre></body></html>\s*$")


class BrowserRender:
    """Render one page, in a browser that was never used before."""

    async def run(self, call: NodeCall[BrowserConfig]) -> Mapping[str, JSONValue]:
        config = call.config
        url, html = _asked(call.inputs)
        shoots = config.mode == "screenshot"
        order = CommandOrder(
            argv=("/bin/sh", "-c", _SCRIPT, "sh", url, *_switches(config, shoots=shoots)),
            app=call.tools.app,
            limits=replace(limits_of(config), reserved_mb=_RESERVED_MB, open_files=_OPEN_FILES),
            env=config.env,
            files={_FONTS: _FONTS_CONF, _PAGE: html.encode("utf-8", "replace")},
            collect=(_PICTURE,) if shoots else (),
            egress=call.tools.egress,
        )
        found = await run_command(call, order, stream=False)
        _check(found, url, shoots=shoots)
        dom = found.stdout.decode("utf-8", "replace").removesuffix("\n")
        ports: JSONObject = {"dom": dom, "text": text_of(dom)}
        if shoots:
            ports["screenshot"] = base64.b64encode(found.files[_PICTURE]).decode()
        output = ports[config.mode]
        return {**ports, "output": output, "stdout": output, "duration_ms": milliseconds(found.usage.wall)}


def text_of(html: str) -> str:
    """Give the words of a page, one line per block, without what is not shown."""
    reader = _Words()
    reader.feed(html)
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.said).splitlines())
    return "\n".join(line for line in lines if line)


class _Words(HTMLParser):
    _HIDDEN = frozenset({"script", "style", "noscript", "template", "head"})
    _IN_LINE = frozenset({"a", "abbr", "b", "bdi", "code", "em", "i", "mark", "s", "small", "span", "strong", "u"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.said: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in self._HIDDEN
        self._part(tag)

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in self._HIDDEN))
        self._part(tag)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.said.append(data.replace("\n", " "))

    def _part(self, tag: str) -> None:
        if tag not in self._IN_LINE:
            self.said.append("\n")


def _asked(inputs: Mapping[str, JSONValue]) -> tuple[str, str]:
    """Read which page to render: the url, or the page."""
    url, html = (str(inputs.get(name) or "") for name in ("url", "html"))
    if bool(url) == bool(html):
        given = "both" if url else "neither"
        raise node_error(ErrorKind.INVALID_INPUT, f"url and html say which page to render; given {given}; give one")
    if url and urlsplit(url).scheme.lower() not in ("http", "https"):
        raise node_error(
            ErrorKind.INVALID_INPUT,
            f'url is "{url[:200]}", which is neither http nor https; a page of your own is `html`',
        )
    return url, html


def _switches(config: BrowserConfig, *, shoots: bool) -> tuple[str, ...]:
    window = f"--window-size={config.width},{config.height}"
    picture = (f"--screenshot={_PICTURE}", "--hide-scrollbars") if shoots else ()
    return (f"--virtual-time-budget={config.wait_ms}", window, *picture)


def _check(found: Exited, url: str, *, shoots: bool) -> None:
    """Raise what went wrong although the browser ran to its end."""
    if found.code == _NOT_THERE:
        raise node_error(
            ErrorKind.INTERNAL,
            "Chromium is not installed where this worker runs, so browser.render can't work; its operator mends that: "
            "apt-get install chromium",
        )
    if found.code != 0:
        raise _broke(found, f"the browser ended with {found.code}")
    if not found.stdout.strip():
        raise node_error(
            ErrorKind.UPSTREAM,
            f"{url[:200]} could not be loaded: no answer, or this app's flows may not connect to it"
            if url
            else "the page has nothing in it",
        )
    if url and (refused := _REFUSAL.search(found.stdout)):
        raise node_error(ErrorKind.FORBIDDEN, f"{url[:200]} is out of reach: {refused[1].decode('utf-8', 'replace')}")
    if shoots and _PICTURE not in found.files:
        raise _broke(found, f"no screenshot was made ({found.missing.get(_PICTURE, 'for no reason given')})")


def _broke(found: Exited, what: str) -> NodeError:
    last = found.stderr[-2000:].decode("utf-8", "replace")
    return node_error(ErrorKind.USER, f"{what}; a page that needs much may need more memory_mb", stderr=last)
