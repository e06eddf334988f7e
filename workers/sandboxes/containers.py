"""The place for commands that are to run in containers, as nodes know it, and the one of a worker without any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from schemas.outcome import ErrorKind, RunError
from workers.sandboxes.box.base import NO_USAGE, BoxLimits, CommandOrder, CommandOutcome, OnOutput, Stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOrder:
    """One run of an image, in a container of its own."""

    image: str
    #: What it is started with, and what in place of its own entrypoint; None leaves it to the image.
    argv: tuple[str, ...] | None
    entrypoint: tuple[str, ...] | None = None
    #: Whose it is, so that a later attempt can see to it that an earlier one's is over.
    app: str
    run_id: str
    attempt: int
    limits: BoxLimits
    stdin: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""
    #: Wants the network that the operator has for containers.
    network: bool = False


class Containers(Protocol):
    """Runs commands in containers; what is not allowed is an outcome, as is whatever a command does."""

    async def run(self, order: CommandOrder, on_output: OnOutput) -> CommandOutcome:
        """Run a command in a container of the runner image, as any `CommandSandbox` does."""
        ...

    async def run_image(self, order: ImageOrder, on_output: OnOutput) -> CommandOutcome:
        """Run an image, pulled if need be; what is pulled is told as lines of stderr that are not part of it."""
        ...


class NoContainers:
    """Refuses every order, and says what would take them."""

    async def run(self, order: CommandOrder, on_output: OnOutput) -> CommandOutcome:
        return _refused()

    async def run_image(self, order: ImageOrder, on_output: OnOutput) -> CommandOutcome:
        return _refused()


def _refused() -> Stopped:
    message = "there are no containers here; have the run on a worker whose DOCKER_HOST is a Docker daemon"
    return Stopped(error=RunError(kind=ErrorKind.FORBIDDEN, message=message), stdout=b"", stderr=b"", usage=NO_USAGE)
