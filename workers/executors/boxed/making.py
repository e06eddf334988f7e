"""How boxes with an engine are made: what they find of Flo, and what is imported before they are forked."""

from __future__ import annotations

import sysconfig
from functools import partial
from pathlib import Path

import structlog

import schemas
import workers
from schemas.json import JSONObject
from schemas.settings import ExecutionMode, Settings
from workers.executors.boxed.desk import Services
from workers.executors.boxed.engine_box import EngineBox
from workers.executors.boxed.supply import Kind
from workers.executors.boxed.terms import Terms
from workers.sandboxes.box.base import Box, ProgramOrder
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.inside.room import PROXY_PORT
from workers.sandboxes.box.open import open_box
from workers.sandboxes.box.proxy import Network, Proxy

log = structlog.get_logger()

#: Where our own packages, and those that they need, are in a box.
_OURS, _LIBRARIES = "/opt/flo/app", "/opt/flo/site"
_HUB = "/opt/flo/hub"
_ENTRY = "workers.runner.boxed:serve"
_PROXY = f"http://127.0.0.1:{PROXY_PORT}"


async def open_engine_boxes(settings: Settings, network: Network, *, spares: int = 1) -> NamespaceBox:
    """Open the sandbox whose boxes are forked from a Python that has the engine imported; `network` is their way out.

    Raises Unavailable with the reason of each way into a box.
    """
    hub = settings.hub
    hub.mkdir(parents=True, exist_ok=True)
    mounts = {
        f"{_OURS}/workers": str(Path(workers.__file__).parent),
        f"{_OURS}/schemas": str(Path(schemas.__file__).parent),
        _LIBRARIES: sysconfig.get_path("purelib"),
        _HUB: str(hub),
    }
    preload = ("workers.runner.boxed",)
    box = await open_box(mounts=mounts, preload=preload, path=(_OURS, _LIBRARIES), spares=spares)
    box.open_proxy = partial(Proxy, network=network)
    return box


async def make_engine_box(
    box: Box, mode: ExecutionMode, terms: Terms, services: Services, kind: Kind, *, alone: bool = False
) -> EngineBox:
    """Start an engine in a fresh box; `alone` says that the box is for one node. Raises Unavailable."""
    inside: JSONObject = {
        "mode": str(mode),
        "hub": _HUB,
        "proxy": _PROXY if kind.egress.reach != "none" else "",
        "with_code": kind.with_code,
        "alone": alone,
        "http_places": terms.http_places,
        "custom": services.operators.described() if services.operators is not None else [],
    }
    order = ProgramOrder(
        app="engine", entry=_ENTRY, inputs=inside, limits=kind.limits(terms.limits()), egress=kind.egress
    )
    holds = services.begin()
    return await EngineBox.start(await box.start(order, _log_output), services, kind.egress, holds)


def _log_output(stream: str, line: bytes) -> None:
    """What an engine prints is for whoever looks for a fault of ours."""
    log.debug("box.said", stream=stream, line=line.decode(errors="replace")[:2000])
