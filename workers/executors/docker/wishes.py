"""What a run's container is like: what it asks for, within what the operator allows. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.errors import Refused
from schemas.json import JSONObject
from schemas.settings import Settings
from schemas.wording import listed
from workers.sandboxes.docker.images import allowed_image

#: The least in which an engine and its Node start.
LEAST_MEMORY_MB = 128
_MOST_CPUS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What tells a container from others before it has a run."""

    image: str
    runtime: str
    memory_mb: int
    cpus: float | None


def usual_shape(settings: Settings) -> Shape:
    """Give what a run gets that asks for nothing."""
    runtime = next(iter(settings.docker_runtimes), "")
    return Shape(image=settings.docker_image, runtime=runtime, memory_mb=settings.box_memory_mb, cpus=None)


def shape_for(backend_config: JSONObject, settings: Settings) -> Shape:
    """Read what a run asks for. Raises Refused for what the operator does not allow, or what is none."""
    usual = usual_shape(settings)
    return Shape(
        image=allowed_image(backend_config.get("image", usual.image), settings, key="backend_config.image"),
        runtime=_runtime(backend_config.get("runtime", usual.runtime), settings),
        memory_mb=_memory(backend_config.get("memory_mb", usual.memory_mb), settings),
        cpus=_cpus(backend_config.get("cpus")),
    )


def _runtime(wish: object, settings: Settings) -> str:
    known = settings.docker_runtimes or ("",)
    if not isinstance(wish, str) or wish not in known:
        allowed = listed(list(settings.docker_runtimes)) if settings.docker_runtimes else "none but the daemon's own"
        raise Refused(
            f"backend_config.runtime is {wish!r}; allowed: {allowed}. Others are for the operator to add to "
            "FLO_DOCKER_RUNTIME"
        )
    return wish


def _memory(wish: object, settings: Settings) -> int:
    most = settings.box_memory_mb
    if not isinstance(wish, int) or isinstance(wish, bool) or not LEAST_MEMORY_MB <= wish <= most:
        raise Refused(
            f"backend_config.memory_mb is {wish!r}; allowed: {LEAST_MEMORY_MB} to {most}. More is for the operator to "
            "allow with FLO_BOX_MEMORY_MB"
        )
    return wish


def _cpus(wish: object) -> float | None:
    if wish is None:
        return None
    if not isinstance(wish, int | float) or isinstance(wish, bool) or not 0.01 <= wish <= _MOST_CPUS:
        raise Refused(f"backend_config.cpus is {wish!r}; allowed: 0.01 to {_MOST_CPUS}")
    return float(wish)
