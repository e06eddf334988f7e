"""Whether nodes that run alone can have containers here: one image, and a daemon that has it already."""

from __future__ import annotations

from schemas.errors import Unavailable
from schemas.settings import Settings
from workers.sandboxes.docker.daemon import Daemon, NotThere


async def runner_image_is_there(settings: Settings) -> None:
    """Raise Unavailable where Docker does not answer, or has no runner image; nothing is pulled for one node."""
    image, daemon = settings.docker_image, Daemon(settings)
    try:
        await daemon.ask(lambda client: client.inspect_image(image))
    except NotThere:
        raise Unavailable(f"Docker has no image {image}; build it with scripts/docker-runner-image") from None
    finally:
        daemon.close()
