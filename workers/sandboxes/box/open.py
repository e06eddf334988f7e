"""Choose how boxes are made here, and open the sandbox."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from schemas.errors import Unavailable
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.bubblewrap import BubblewrapWay
from workers.sandboxes.box.cgroups import Cgroups, Tree, find_tree
from workers.sandboxes.box.inside import kernel
from workers.sandboxes.box.runtime import find_runtime
from workers.sandboxes.box.ways import Way
from workers.sandboxes.box.zygote import ZygoteWay

_SYS_ADMIN = 21
#: The names of the ways, the best first.
WAYS = ("zygote", "zygote-userns", "bubblewrap")


async def open_box(
    *,
    way: str = "",
    mounts: Mapping[str, str] | None = None,
    preload: tuple[str, ...] = (),
    path: tuple[str, ...] = (),
    spares: int = 2,
    tree: Tree | None = None,
) -> NamespaceBox:
    """Open the sandbox by the best way that works here, or by the given one, which is tried by running a box.

    `mounts` (place inside -> path here) are shown read-only in every box; `preload` are modules that the zygote
    imports for `ProgramOrder.entry`, found on `path`, folders inside. Raises Unavailable with the reason of each way.
    """
    reasons = []
    for name in (way,) if way else WAYS:
        box = None
        try:
            found, environment = make_way(name, mounts=mounts, preload=preload, path=path)
            box = NamespaceBox(found, Cgroups(tree or find_tree()), environment=environment, spares=spares)
            await box.try_out()
        except Unavailable as reason:
            if box is not None:
                await box.aclose()
            reasons.append(f"{name}: {reason}")
        else:
            return box
    raise Unavailable("no namespace sandbox works here; " + "; ".join(reasons))


def make_way(
    name: str, *, mounts: Mapping[str, str] | None = None, preload: tuple[str, ...] = (), path: tuple[str, ...] = ()
) -> tuple[Way, dict[str, str]]:
    """Make a way by its name, and what programs find in their environment; raise Unavailable if it can't be."""
    if not kernel.supported():
        raise Unavailable(f"boxes are made on x86_64 and aarch64, and this is {kernel.MACHINE}")
    by_others = name != "zygote" and os.geteuid() == 0
    runtime = find_runtime(extra=mounts, preload=preload, path=path, by_others=by_others)
    if name == "bubblewrap":
        return BubblewrapWay(runtime), runtime.environment()
    as_root = name == "zygote"
    if as_root and not may_administer():
        raise Unavailable("this way needs root with CAP_SYS_ADMIN (in a container: --privileged)")
    return ZygoteWay(runtime, as_root=as_root), runtime.environment()


def may_administer() -> bool:
    """Tell whether this process may make namespaces and mounts as it is (capabilities(7))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _SYS_ADMIN & 1) and os.geteuid() == 0
    return False
