"""Say which ways into a box work on this machine, by running one of each: for `flo doctor`."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from schemas.errors import FloError
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.cgroups import Cgroups, Tree, find_tree
from workers.sandboxes.box.open import WAYS, make_way, may_administer

#: Longest that one way is waited for.
_PATIENCE = 10.0
#: Kernel settings that keep user namespaces from those who are not root, and what turns them on.
_SWITCHES = (
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "install bubblewrap with its AppArmor profile, or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Whether one thing works here, why not, and what to install or enable."""

    name: str
    works: bool
    detail: str
    fix: str = ""
    #: How long the trial took, the start of the way included.
    took: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What this machine can do for boxes."""

    #: In the order in which they are chosen.
    ways: tuple[Finding, ...]
    #: memory, pids, cpu
    limits: tuple[Finding, ...]
    kernel: tuple[Finding, ...]
    cgroup_version: int

    @property
    def chosen(self) -> str:
        """The way that `open_box` takes; empty if none works."""
        return next((way.name for way in self.ways if way.works), "")


async def probe() -> Report:
    """Try every way at once; never raises for what this machine lacks."""
    tree = find_tree()
    ways = await asyncio.gather(*(_try(name) for name in WAYS))
    return Report(ways=tuple(ways), limits=_limits(tree), kernel=_kernel(), cgroup_version=tree.version)


async def _try(name: str) -> Finding:
    began = time.monotonic()
    box = None
    try:
        way, environment = make_way(name)
        # Without cgroups: what those hold is told apart, and a trial should not wait for them.
        box = NamespaceBox(way, Cgroups(Tree(0, {}, {})), environment=environment, spares=0)
        async with asyncio.timeout(_PATIENCE):
            await box.try_out()
    except TimeoutError:
        return Finding(name=name, works=False, detail=f"did not answer within {_PATIENCE:g} s")
    except (FloError, OSError) as reason:
        return Finding(name=name, works=False, detail=str(reason), fix=_fix(name))
    finally:
        if box is not None:
            await box.aclose()
    took = timedelta(seconds=time.monotonic() - began)
    return Finding(
        name=name, works=True, detail=f"ran a box, its start included, in {took.total_seconds():.2f} s", took=took
    )


def _fix(name: str) -> str:
    switches = [fix for path, bad, fix in _SWITCHES if _read(path) == bad]
    match name:
        case "zygote":
            return "run the worker as root (in a container: --privileged), or use another way"
        case "bubblewrap" if shutil.which("bwrap") is None:
            return "sudo apt-get install bubblewrap"
        case _ if switches:
            return "; ".join(switches)
        case _:
            return "in a container, add --security-opt seccomp=unconfined --security-opt systempaths=unconfined"


def _limits(tree: Tree) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            name=name,
            works=name in tree.folders,
            detail=f"cgroup v{tree.version} at {tree.folders[name]}"
            if name in tree.folders
            else f"held per process by rlimits only: {tree.reasons.get(name, 'no such controller')}",
            fix="" if name in tree.folders else "run as root, or in a delegated cgroup (systemd: Delegate=yes)",
        )
        for name in ("memory", "pids", "cpu")
    )


def _kernel() -> tuple[Finding, ...]:
    actions = _read("/proc/sys/kernel/seccomp/actions_avail")
    version = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    switches = [(path, fix) for path, bad, fix in _SWITCHES if _read(path) == bad]
    return (
        Finding(name="seccomp", works="errno" in actions, detail=actions or "the kernel has no seccomp filters"),
        Finding(
            name="user namespaces",
            works=not switches,
            detail=f"closed to users by {switches[0][0]}" if switches else "open to users",
            fix=switches[0][1] if switches else "",
        ),
        Finding(
            name="kernel",
            works=version >= (5, 12),
            detail=os.uname().release,
            fix="" if version >= (5, 12) else "the ways by zygote need Linux 5.12 or newer",
        ),
        Finding(name="root", works=may_administer(), detail=f"uid {os.geteuid()}"),
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


__all__ = ["Finding", "Report", "probe"]
