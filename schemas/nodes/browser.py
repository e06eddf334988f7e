"""The node type that renders a page in headless Chromium; config and ports are FlowEngine's, and more."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field

from schemas.flow import Whole
from schemas.json import JSONValue
from schemas.nodes.boxed import PROCESS_MODES, BoxedConfig
from schemas.nodes.spec import NodeType, Port

#: Limit on a page that names none.
DEFAULT_RENDER_TIMEOUT = timedelta(seconds=30)


class BrowserConfig(BoxedConfig):
    url: str | None = Field(default=None, min_length=1, max_length=8192, description="the page to render")
    html: str | None = Field(default=None, min_length=1, description="the page itself, instead of its url")
    mode: Literal["dom", "text", "screenshot"] = Field(default="dom", description="what the port output gives")
    wait_ms: Whole = Field(
        default=1000, ge=0, le=600_000, description="how much of the page's own time its scripts are given"
    )
    width: Whole = Field(default=1280, ge=16, le=8192, description="of the window, in pixels")
    height: Whole = Field(default=720, ge=16, le=8192, description="of the window, in pixels")
    memory_mb: Whole = Field(
        default=1024, ge=256, le=65_536, description="all memory of the box; a page takes 200 to 600"
    )
    pids: Whole = Field(default=256, ge=64, le=4096, description="processes and threads at once")
    tmp_mb: Whole = Field(default=256, ge=64, le=65_536, description="scratch space")
    max_output_bytes: Whole = Field(
        default=10_000_000, ge=1, le=100_000_000, description="limit on the DOM, and on the screenshot"
    )
    image: str = Field(default="", description="FlowEngine's; not used: the browser is that of the worker's machine")
    zypi_url: str = Field(default="", description="FlowEngine's; not used")

    @property
    def wall_clock(self) -> timedelta:
        return self.limit or DEFAULT_RENDER_TIMEOUT

    def target(self, inputs: Mapping[str, JSONValue]) -> str | None:
        with contextlib.suppress(ValueError):
            return urlsplit(str(inputs.get("url", ""))).netloc.rpartition("@")[2].lower() or None
        return None


BROWSER_RENDER = NodeType(
    type="browser.render",
    category="browser",
    description="Renders a page in headless Chromium, in a box of its own: DOM, text or a screenshot.",
    inputs=(
        Port(name="url", type="string", description="the page to render: http or https"),
        Port(name="html", type="string", description="the page itself, instead of its url"),
    ),
    outputs=(
        Port(name="output", type="string", description="what the mode asks for"),
        Port(name="dom", type="string", description="the page's HTML once its scripts ran"),
        Port(name="text", type="string", description="its words, without scripts and styles"),
        Port(name="screenshot", type="string", description="a PNG in base64; only in the mode screenshot"),
        Port(name="stdout", type="string", description="FlowEngine's name for output"),
        Port(name="duration_ms", type="integer", description="how long it took"),
    ),
    config=BrowserConfig,
    example={"html": "<h1>Hello</h1>", "mode": "text"},
    repeatable=False,
    modes=PROCESS_MODES,
)
