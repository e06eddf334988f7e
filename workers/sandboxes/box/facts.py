"""What can be learned of this machine about boxes: gathered once, so that what follows from it is a pure function."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from schemas.errors import FloError
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.cgroups import Cgroups, Tree, find_tree
from workers.sandboxes.box.inside import kernel
from workers.sandboxes.box.open import WAYS, make_way, may_administer

#: Longest that one way is waited for, in seconds.
_PATIENCE = 10.0
#: Kernel settings that keep user namespaces from those who are not root, each with the value that does.
SWITCHES = {
    "/proc/sys/kernel/unprivileged_userns_clone": "0",
    "/proc/sys/user/max_user_namespaces": "0",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1",
}
#: What package managers call themselves, and how each installs bubblewrap.
_INSTALLERS = {
    "apt-get": "sudo apt-get install bubblewrap",
    "dnf": "sudo dnf install bubblewrap",
    "apk": "apk add bubblewrap",
    "pacman": "sudo pacman -S bubblewrap",
    "zypper": "sudo zypper install bubblewrap",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One box by one way: why it did not work, if it did not."""

    way: str
    trouble: str = ""
    took: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One machine."""

    #: One for each way, the best first.
    trials: tuple[Trial, ...]
    #: Where cgroups can be made.
    tree: Tree
    #: Processor, as the kernel names it, and whether its system calls are known here.
    machine: str
    machine_is_known: bool
    #: Of the kernel, e.g. "6.1.0-13-amd64".
    release: str
    user: int
    may_administer: bool
    #: What seccomp can answer to a call; empty without seccomp.
    seccomp: str
    #: Of SWITCHES, those that are there, with their values.
    switches: Mapping[str, str]
    #: Empty where the program is not installed.
    bubblewrap: str
    install_bubblewrap: str
    in_container: bool


async def gather() -> Facts:
    """Try every way at once; never raises for what this machine lacks."""
    trials = await asyncio.gather(*(_try(name) for name in WAYS))
    return Facts(
        trials=tuple(trials),
        tree=find_tree(),
        machine=kernel.MACHINE,
        machine_is_known=kernel.supported(),
        release=os.uname().release,
        user=os.geteuid(),
        may_administer=may_administer(),
        seccomp=_read("/proc/sys/kernel/seccomp/actions_avail"),
        switches={path: value for path in SWITCHES if (value := _read(path))},
        bubblewrap=shutil.which("bwrap") or "",
        install_bubblewrap=next(
            (how for program, how in _INSTALLERS.items() if shutil.which(program)), "install bubblewrap"
        ),
        in_container=_in_container(),
    )


async def _try(name: str) -> Trial:
    began = time.monotonic()
    box = None
    try:
        way, environment = make_way(name)
        # Without cgroups: what those hold is told apart, and a trial should not wait for them.
        box = NamespaceBox(way, Cgroups(Tree(0, {}, {})), environment=environment, spares=0)
        async with asyncio.timeout(_PATIENCE):
            await box.try_out()
    except TimeoutError:
        return Trial(way=name, trouble=f"did not answer within {_PATIENCE:g} s")
    except (FloError, OSError) as reason:
        return Trial(way=name, trouble=str(reason))
    finally:
        if box is not None:
            await box.aclose()
    return Trial(way=name, took=timedelta(seconds=time.monotonic() - began))


def _in_container() -> bool:
    return any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv"))


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
