"""All that one worker has of Docker; nothing is asked of the daemon before something needs it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta

from schemas.settings import Settings
from workers.sandboxes.box.proxy import Network
from workers.sandboxes.docker.container import Yard
from workers.sandboxes.docker.daemon import SOCKET, Daemon
from workers.sandboxes.docker.images import Images
from workers.sandboxes.docker.runner import LeaseLeft, Way

#: For how long a process without a lease holds what it has started, from each time that it is asked.
_UNLEASED = timedelta(seconds=10)


def unleased() -> timedelta:
    """Tell that a process that has no lease to lose holds what it has for as long as it answers."""
    return _UNLEASED


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerPlace:
    """The containers of one worker."""

    settings: Settings
    yard: Yard
    images: Images
    way: Way

    @classmethod
    def of(
        cls, settings: Settings, *, owner: str = "", lease_left: LeaseLeft = unleased, network: Network | None = None
    ) -> DockerPlace:
        """`owner` is the worker, as SQL knows it; a process that is none there has a name of its own."""
        daemon = Daemon(settings)
        yard = Yard(daemon, owner=owner or f"none-{secrets.token_hex(8)}")
        network = network or Network.outside(allow_private=settings.allow_private_network)
        way = Way(yard=yard, lease_left=lease_left, network=network)
        return cls(settings=settings, yard=yard, images=Images(daemon), way=way)

    @property
    def is_near(self) -> bool:
        """Whether there seems to be a daemon: one is named, or this machine's has its socket."""
        return self.settings.docker_host is not None or SOCKET.exists()

    @property
    def usual_runtime(self) -> str:
        """The OCI runtime of containers that ask for none; empty leaves it to the daemon."""
        return next(iter(self.settings.docker_runtimes), "")

    async def aclose(self) -> None:
        """Kill and confirm dead whatever is left."""
        await self.yard.aclose()
