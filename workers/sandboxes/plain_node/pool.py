"""The pool of Node hosts that run code as plain Node."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from workers.sandboxes.node.jail import NoJail
from workers.sandboxes.node.pool import GRACE, NodePool
from workers.sandboxes.node.program import HostProgram

#: Runs that one host works on at once; each has a thread.
SLOTS = 16
#: Ready threads that a host keeps for each memory limit, about 5 MB each.
STOCK = 2
#: Memory limit for which threads are made before the first run asks.
WARM_MEMORY_MB = 128
#: The first lets code be compiled as a module under its own name.
FLAGS = ("--experimental-vm-modules", "--no-warnings")
#: What code finds of the worker's environment; the rest may hold secrets of Flo's own.
PASSED_ON = (
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip


class PlainNodePool(NodePool):
    """Runs each order in a fresh worker thread of a warm Node, with all that Node can do and no sandbox.

    Its code may have effects, so nothing ever starts twice: a run whose host dies under it is lost, and told so.
    """

    def __init__(
        self,
        *,
        hosts: int = 0,
        node: Path | None = None,
        slots: int = SLOTS,
        stock: int = STOCK,
        warm_memory_mb: int = WARM_MEMORY_MB,
        grace: timedelta = GRACE,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] | None = None,
    ) -> None:
        """Prepare a pool of `hosts` processes (0: one per core).

        `cwd` is where code finds itself, here by default; `env` its environment, `PASSED_ON` of our own by default;
        `prefix` as in `NoJail`.
        """
        program = HostProgram(
            name="Node",
            folder=Path(__file__).parent,
            flags=FLAGS,
            settings={"stock": stock, "warm_memory_mb": warm_memory_mb},
            repeats=False,
        )
        given = passed_on(os.environ) if env is None else env
        jail = NoJail(prefix=prefix, env=with_proxy(given), cwd=cwd or Path.cwd())
        super().__init__(program, hosts=hosts, node=node, slots=slots, grace=grace, jail=jail)


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """Pick what code may know of the worker's environment."""
    return {name: environment[name] for name in PASSED_ON if name in environment}


def with_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Have Node's fetch take the proxy of an environment, which it does only when it is told to."""
    has_proxy = any(name.lower() in {"http_proxy", "https_proxy"} for name in environment)
    return {**environment, **({"NODE_USE_ENV_PROXY": "1"} if has_proxy else {})}
