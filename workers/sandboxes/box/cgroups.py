"""Memory, process and processor limits on a whole box, by cgroup v2 or v1, as far as they are ours to write.

Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/{memory,pids,cpuacct}.rst. A box's first process joins
by writing 0 to descriptors of `cgroup.procs` that we opened: it can't see the cgroup file system itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workers.sandboxes.box.base import BoxLimits
from workers.sandboxes.box.identity import pid_namespace, started_at

#: Memory that the box's own first process takes, in bytes, on top of the program's limit.
OVERHEAD = 16 << 20
#: Processes of the box that are not the program's: pid 1.
_OWN_PIDS = 1
_PERIOD_US = 100_000
#: Pauses, in seconds, between tries to remove a cgroup; what is left after them goes at the next start.
_PATIENCE = (0.005, 0.02, 0.1, 0.5, 2.0)
_CONTROLLERS = ("memory", "pids", "cpu", "cpuacct")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolls:
    """What the cgroups of one box counted."""

    oom_kills: int = 0
    #: Forks that were refused for lack of pids.
    forks_refused: int = 0
    peak_memory_bytes: int = 0
    cpu_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """Where this process may make cgroups; `folders` is controller -> our cgroup in its hierarchy."""

    version: int
    folders: Mapping[str, Path]
    #: Controller -> why it can't be used.
    reasons: Mapping[str, str]


class Cgroups:
    """Makes the cgroups of this worker's boxes, under one name per worker and hierarchy."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._numbers = itertools.count(1)
        self._name = f"flo.{pid_namespace()}.{os.getpid()}.{started_at(os.getpid())}"
        self._homes: list[Path] = []
        self._removals: set[asyncio.Task[None]] = set()
        for folder in dict.fromkeys(tree.folders.values()):
            _sweep(folder)
            home = folder / f"{self._name}.{id(self):x}"
            home.mkdir()
            self._homes.append(home)
            if tree.version == 2:
                (home / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in tree.folders))

    @property
    def held(self) -> frozenset[str]:
        """Which limits the cgroups hold."""
        return frozenset(self.tree.folders) - {"cpuacct"}

    def make(self, limits: BoxLimits) -> Group:
        """Make the cgroups of one box."""
        name = f"box-{next(self._numbers)}"
        homes = dict(zip(dict.fromkeys(self.tree.folders.values()), self._homes, strict=True))
        wanted = self.wanted(limits)
        made = {item: homes[folder] / name for item, folder in self.tree.folders.items() if item in wanted}
        for folder in dict.fromkeys(made.values()):
            folder.mkdir()
        group = Group(self.tree.version, made)
        group.limit(limits)
        return group

    def wanted(self, limits: BoxLimits) -> frozenset[str]:
        """Name the controllers that these limits need: each v1 hierarchy that a box joins costs it time."""
        needed = {"memory", "pids"}
        if limits.cpus is not None or self.tree.version == 2:
            needed.add("cpu")
        if limits.cpu_seconds is not None:
            needed.add("cpuacct")
        return frozenset(needed)

    def remove(self, group: Group) -> None:
        """Remove a dead box's cgroups, now or soon: the kernel may need a moment to let go of its last member."""
        if not group.remove():
            removal = asyncio.get_running_loop().create_task(_remove_patiently(group))
            self._removals.add(removal)
            removal.add_done_callback(self._removals.discard)

    async def settled(self) -> None:
        """Return when every dead box's cgroups are removed."""
        await asyncio.gather(*self._removals)

    async def aclose(self) -> None:
        await self.settled()
        for home in self._homes:
            with contextlib.suppress(OSError):
                home.rmdir()


async def _remove_patiently(group: Group) -> None:
    for pause in _PATIENCE:
        await asyncio.sleep(pause)
        if group.remove():
            return


class Group:
    """The cgroups of one box: one folder in v2, one per controller in v1."""

    def __init__(self, version: int, folders: Mapping[str, Path]) -> None:
        self._version = version
        self._folders = folders
        self._limits: BoxLimits | None = None

    def limit(self, limits: BoxLimits) -> None:
        """Set the limits; what is set already is left."""
        if limits == self._limits:
            return
        grows = self._limits is not None and limits.memory_mb > self._limits.memory_mb
        self._limits = limits
        memory = limits.memory_mb * (1 << 20) + OVERHEAD
        pids = limits.pids + _OWN_PIDS
        if self._version == 2:
            self._write("memory", "memory.max", memory)
            self._write("memory", "memory.swap.max", 0, may_lack=True)
            self._write("pids", "pids.max", pids)
            if limits.cpus is not None:
                self._write("cpu", "cpu.max", f"{round(limits.cpus * _PERIOD_US)} {_PERIOD_US}")
            return
        if grows:  # memory and swap together may never have the lower limit, not even between two writes
            self._write("memory", "memory.memsw.limit_in_bytes", memory, may_lack=True)
        self._write("memory", "memory.limit_in_bytes", memory)
        self._write("memory", "memory.memsw.limit_in_bytes", memory, may_lack=True)
        self._write("pids", "pids.max", pids)
        if limits.cpus is not None:
            self._write("cpu", "cpu.cfs_period_us", _PERIOD_US)
            self._write("cpu", "cpu.cfs_quota_us", round(limits.cpus * _PERIOD_US))

    def open_procs(self) -> list[int]:
        """Open what a process joins by; the caller closes them."""
        return [os.open(folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for folder in self._all()]

    def read(self) -> Tolls:
        if self._version == 2:
            return Tolls(
                oom_kills=self._event("memory", "memory.events", "oom_kill"),
                forks_refused=self._event("pids", "pids.events", "max"),
                peak_memory_bytes=self._number("memory", "memory.peak"),
                cpu_seconds=self.cpu_seconds(),
            )
        return Tolls(
            oom_kills=self._event("memory", "memory.oom_control", "oom_kill"),
            forks_refused=self._event("pids", "pids.events", "max"),
            peak_memory_bytes=self._number("memory", "memory.max_usage_in_bytes"),
            cpu_seconds=self.cpu_seconds(),
        )

    def cpu_seconds(self) -> float | None:
        """Processor time of the box so far, or None where nothing counts it."""
        if self._version == 2:
            spent = self._event("cpu", "cpu.stat", "usage_usec") if "cpu" in self._folders else 0
            return spent / 1e6 if spent else None
        spent = self._number("cpuacct", "cpuacct.usage")
        return spent / 1e9 if spent else None

    def kill(self) -> None:
        """Kill every member at once, where the kernel can (v2, Linux 5.14); pid 1's death does the same."""
        if self._version == 2:
            for folder in self._all():
                with contextlib.suppress(OSError):
                    (folder / "cgroup.kill").write_text("1")

    def remove(self) -> bool:
        """Remove the cgroups; False while the kernel still has a dying member in one."""
        gone = True
        for folder in self._all():
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone

    def _all(self) -> list[Path]:
        return list(dict.fromkeys(self._folders.values()))

    def _write(self, controller: str, file: str, value: object, *, may_lack: bool = False) -> None:
        if controller not in self._folders:
            return
        try:
            (self._folders[controller] / file).write_text(str(value))
        except FileNotFoundError:
            if not may_lack:
                raise

    def _number(self, controller: str, file: str) -> int:
        try:
            return int((self._folders[controller] / file).read_text())
        except (OSError, KeyError, ValueError):
            return 0

    def _event(self, controller: str, file: str, name: str) -> int:
        try:
            text = (self._folders[controller] / file).read_text()
        except (OSError, KeyError):
            return 0
        return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0)


def find_tree(proc: Path = Path("/proc/self")) -> Tree:
    """Find where cgroups can be made: by controller in v1 and hybrid, in our own cgroup in v2."""
    mounts = _mounts((proc / "mountinfo").read_text())
    ours = _memberships((proc / "cgroup").read_text())
    folders: dict[str, Path] = {}
    reasons: dict[str, str] = {}
    for controller in _CONTROLLERS:
        if controller not in mounts or controller not in ours:
            continue
        folder = _below(mounts[controller], ours[controller])
        reason = _why_not(folder)
        if reason:
            reasons[controller] = reason
        else:
            folders[controller] = folder
    if folders or reasons:
        return Tree(1, folders, reasons)
    if "" not in mounts:
        return Tree(0, {}, {"memory": "no cgroup file system is mounted", "pids": "no cgroup file system is mounted"})
    return _find_v2(_below(mounts[""], ours.get("", "/")))


def _find_v2(folder: Path) -> Tree:
    wanted = ("memory", "pids", "cpu")
    reason = _why_not(folder)
    if reason:
        return Tree(2, {}, dict.fromkeys(wanted, reason))
    try:
        there = (folder / "cgroup.controllers").read_text().split()
        usable = [name for name in wanted if name in there]
        if not set(usable) <= set((folder / "cgroup.subtree_control").read_text().split()):
            _make_way(folder)
            (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in usable))
    except OSError as problem:
        why = f"{folder}: controllers can't be handed down ({problem.strerror}); run the worker in a cgroup of its own"
        return Tree(2, {}, dict.fromkeys(wanted, why))
    lacking = {name: f"{folder}: the controller is not handed down to here" for name in wanted if name not in there}
    return Tree(2, dict.fromkeys(usable, folder), lacking)


def _make_way(folder: Path) -> None:
    """Move ourselves to a leaf: in v2 a cgroup with processes can't have controlled children."""
    if folder.joinpath("cgroup.type").exists():  # the root of all has none, and may have both
        leaf = folder / "flo.worker"
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text("0")


def _why_not(folder: Path) -> str:
    """Try to make a cgroup; the answer is empty when it works."""
    trial = folder / f"flo.trial.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError as problem:
        return f"{folder}: {problem.strerror}; run as root, or in a delegated cgroup (systemd: Delegate=yes)"
    return ""


def _mounts(text: str) -> dict[str, tuple[str, str]]:
    """Read mountinfo: v1 controller ("" for v2) -> (root of the mount, where it is)."""
    found: dict[str, tuple[str, str]] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _source, options) = left.split(), right.split()
        if kind == "cgroup2":
            found.setdefault("", (fields[3], fields[4]))
        elif kind == "cgroup":
            for option in options.split(","):
                found.setdefault(option, (fields[3], fields[4]))
    return found


def _memberships(text: str) -> dict[str, str]:
    """Read /proc/self/cgroup: v1 controller ("" for v2) -> our cgroup."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _below(mount: tuple[str, str], ours: str) -> Path:
    root, place = mount
    inner = os.path.relpath(ours, root) if ours.startswith(root.rstrip("/") + "/") or ours == root else "."
    return Path(place) / inner


def _sweep(folder: Path) -> None:
    """Remove what dead workers left. Only empty cgroups can be removed, so nothing that lives is ever touched."""
    for home in folder.glob(f"flo.{pid_namespace()}.*"):
        _, _, pid, started, *_ = home.name.split(".")
        if started_at(int(pid)) == started:
            continue
        for place in (*home.glob("box-*"), home):
            with contextlib.suppress(OSError):
                place.rmdir()
