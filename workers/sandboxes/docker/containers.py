"""Commands in containers: ours in the runner image, others in theirs."""

from __future__ import annotations

from schemas.errors import FloError, Refused, Unavailable
from schemas.outcome import ErrorKind, RunError
from schemas.settings import Settings
from workers.sandboxes.box.base import NO_USAGE, CommandOrder, CommandOutcome, OnOutput, Stopped
from workers.sandboxes.containers import ImageOrder
from workers.sandboxes.docker.command import run_contained
from workers.sandboxes.docker.daemon import NotThere
from workers.sandboxes.docker.foreign import run_foreign
from workers.sandboxes.docker.images import allowed_image
from workers.sandboxes.docker.place import DockerPlace


class DockerContainers:
    """Fills orders with containers of one daemon."""

    def __init__(self, place: DockerPlace) -> None:
        self._place = place

    async def run(self, order: CommandOrder, on_output: OnOutput) -> CommandOutcome:
        try:
            await self._place.images.need_runner(self._settings.docker_image)
            return await run_contained(self._place, order, on_output)
        except (Unavailable, NotThere) as trouble:
            return _lost(trouble)

    async def run_image(self, order: ImageOrder, on_output: OnOutput) -> CommandOutcome:
        try:
            allowed_image(order.image, self._settings, key="image")
            network = self._network(order)
            await self._place.images.need(order.image, lambda line: on_output("stderr", line.encode()))
            return await run_foreign(self._place, order, on_output, network=network)
        except Refused as refusal:
            return _stopped(ErrorKind.FORBIDDEN, str(refusal))
        except NotThere as gone:
            message = f"the image {order.image} is not there: {gone}; pull or build it on the machine of {self._host}"
            return _stopped(ErrorKind.INVALID_INPUT, message)
        except Unavailable as trouble:
            return _lost(trouble)

    def _network(self, order: ImageOrder) -> str | None:
        network = self._settings.docker_network
        if order.network and network is None:
            raise Refused(
                "network: true is asked for, and containers have none here; leave it out, or have the operator name a "
                "network of the Docker daemon in FLO_DOCKER_NETWORK"
            )
        return network if order.network else None

    @property
    def _settings(self) -> Settings:
        return self._place.settings

    @property
    def _host(self) -> str:
        return self._place.yard.daemon.url


def _lost(trouble: FloError) -> Stopped:
    return _stopped(ErrorKind.LOST, str(trouble))


def _stopped(kind: ErrorKind, message: str) -> Stopped:
    return Stopped(error=RunError(kind=kind, message=message), stdout=b"", stderr=b"", usage=NO_USAGE)
