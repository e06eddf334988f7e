"""The images that containers are made of: which are allowed, and whether they are there."""

from __future__ import annotations

import asyncio
import fnmatch
import time
from collections.abc import Callable
from typing import Any

import structlog

from schemas.errors import Refused, Unavailable
from schemas.settings import Settings
from schemas.wording import listed
from workers.sandboxes.docker.daemon import Daemon, Declined, NotThere
from workers.sandboxes.docker.sources import LABEL, fingerprint

log = structlog.get_logger()

#: What the runner image says of itself; the number is raised when a worker can no longer talk to an older one.
RUNNER_LABEL, RUNNER_VERSION = "flo.runner", "1"
_FIX = "build it with scripts/docker-runner-image, or name one that the daemon has with FLO_DOCKER_IMAGE"
#: Seconds between two lines about a pull.
_TELL_EVERY = 2.0

Tell = Callable[[str], object]


def allowed_image(wish: object, settings: Settings, *, key: str) -> str:
    """Give the image that is asked for. Raises Refused for one that the operator does not list."""
    if not isinstance(wish, str) or not any(fnmatch.fnmatchcase(wish, each) for each in settings.docker_images):
        allowed = listed(list(settings.docker_images))
        raise Refused(f"{key} is {wish!r}; allowed: {allowed}. Others are for the operator to add to FLO_DOCKER_ALLOW")
    return wish


class Images:
    """Looks for images, and pulls those that are allowed and not there, once for all who want them."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._known: set[str] = set()
        self._pulling: dict[str, asyncio.Task[None]] = {}

    async def need_runner(self, image: str) -> None:
        """See that an image is there and has our program in it; raise Unavailable with the fix."""
        if image in self._known:
            return
        try:
            await self.need(image, lambda line: log.info("image.pulled", image=image, progress=line))
            found = await self._daemon.ask(lambda client: client.inspect_image(image))
        except NotThere as why:
            raise Unavailable(f"the runner image {image} is not there: {why}; {_FIX}") from None
        labels = found["Config"].get("Labels") or {}
        if labels.get(RUNNER_LABEL) != RUNNER_VERSION:
            raise Unavailable(f"the image {image} has no label {RUNNER_LABEL}={RUNNER_VERSION}, so no runner; {_FIX}")
        if labels.get(LABEL) not in (None, await asyncio.to_thread(fingerprint)):
            log.warning("image.is_of_other_sources", image=image, fix="build it again: scripts/docker-runner-image")
        self._known.add(image)

    async def need(self, image: str, tell: Tell) -> None:
        """See that an image is there; pull it if need be, and tell how that goes. Raises NotThere."""
        try:
            await self._daemon.ask(lambda client: client.inspect_image(image))
        except NotThere:
            await self._pulled(image, tell)

    def forget(self, image: str) -> None:
        """Look for it again next time: somebody may have removed it."""
        self._known.discard(image)

    async def _pulled(self, image: str, tell: Tell) -> None:
        pulling = self._pulling.get(image)
        if pulling is None:
            loop = asyncio.get_running_loop()
            told = _Told(lambda line: loop.call_soon_threadsafe(tell, line))
            pulling = asyncio.create_task(self._daemon.ask(lambda client: _pull(client, image, told)))
            self._pulling[image] = pulling
            pulling.add_done_callback(lambda _: self._pulling.pop(image))
        else:
            tell(f"waiting for {image}, which is being pulled")
        try:
            await asyncio.shield(pulling)
        except Declined as why:  # a registry that can't be reached is the daemon's trouble, too
            raise NotThere(f"it can't be pulled ({why})") from None


class _Told:
    """Says now and then how far a pull is."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._layers: dict[str, tuple[int, int]] = {}
        self._next = time.monotonic()

    def hear(self, line: dict[str, Any]) -> None:
        progress = line.get("progressDetail") or {}
        if "total" in progress:
            self._layers[line.get("id", "")] = (progress.get("current", 0), progress["total"])
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _TELL_EVERY
            done, total = (sum(layer[part] for layer in self._layers.values()) >> 20 for part in (0, 1))
            status = str(line.get("status", ""))
            self._tell(f"{status}: {done:,} of {total:,} MB" if total else status)


def _pull(client: Any, image: str, told: _Told) -> None:
    import docker.errors

    repository, tag = docker.utils.parse_repository_tag(image)
    for line in client.pull(repository, tag=tag or "latest", stream=True, decode=True):
        if "error" in line:
            raise docker.errors.ImageNotFound(f"it can't be pulled ({line['error']})")
        told.hear(line)
