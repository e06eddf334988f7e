"""Whether runs can have containers: a daemon that answers, the runner image, and the runtimes that are asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from flo.doctor.checks import Finding

_IMAGE = "flo-runner:latest"
#: Seconds; a daemon that is away must not keep the others waiting.
_PATIENCE = 5


def docker_here(environ: Mapping[str, str]) -> Finding:
    """Ask the daemon of DOCKER_HOST, else this machine's. The SDK must be there."""
    import docker

    try:
        with contextlib.closing(docker.from_env(environment=dict(environ), timeout=_PATIENCE).api) as daemon:
            return _found(daemon, environ)
    except Exception as trouble:  # noqa: BLE001 - whatever it is that this SDK raises, it is the finding
        where = environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        fix = "start its daemon (https://docs.docker.com/engine/install), or set DOCKER_HOST to one that runs"
        return _finding(ok=False, detail=f"no daemon at {where}: {_reason(trouble)}", fix=fix)


def _found(daemon: Any, environ: Mapping[str, str]) -> Finding:
    info = daemon.info()
    known = sorted(info["Runtimes"])
    detail = f"daemon {info['ServerVersion']}, default runtime {info['DefaultRuntime']}"
    wanted = [word.strip() for word in environ.get("FLO_DOCKER_RUNTIME", "").split(",") if word.strip()]
    if missing := [name for name in wanted if name not in known]:
        fix = f"install it and name it to the daemon, or set FLO_DOCKER_RUNTIME to some of {', '.join(known)}"
        return _finding(ok=False, detail=f"{detail}, without the runtime {missing[0]}", fix=fix)
    image = environ.get("FLO_DOCKER_IMAGE") or _IMAGE
    if not daemon.images(image):
        fix = "build it with scripts/docker-runner-image, or name another with FLO_DOCKER_IMAGE"
        return _finding(ok=False, detail=f"{detail}, without the image {image}", fix=fix)
    return _finding(ok=True, detail=f"{detail}, image {image}")


def _finding(*, ok: bool, detail: str, fix: str = "") -> Finding:
    return Finding(name="docker", ok=ok, detail=detail, fix=fix)


def _reason(trouble: BaseException) -> str:
    while (below := trouble.__cause__ or trouble.__context__) is not None:
        trouble = below
    return str(trouble)[:120]
