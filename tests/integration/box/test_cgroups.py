"""Where cgroups are found and what is written to them, on made-up machines of every kind."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from workers.sandboxes.box.base import BoxLimits
from workers.sandboxes.box.cgroups import Cgroups, find_tree

LIMITS = BoxLimits(timeout=timedelta(seconds=1), memory_mb=100, pids=7, cpus=0.5, cpu_seconds=3)


def machine(folder: Path, *, mounts: list[str], memberships: list[str]) -> Path:
    """Make a /proc/self that tells of these mounts and cgroups."""
    proc = folder / "proc"
    proc.mkdir()
    (proc / "mountinfo").write_text("".join(f"{line}\n" for line in mounts))
    (proc / "cgroup").write_text("".join(f"{line}\n" for line in memberships))
    return proc


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    """A delegated cgroup of v2, whose controllers are not yet handed down."""
    ours = tmp_path / "cg" / "flo.service"
    ours.mkdir(parents=True)
    (ours / "cgroup.controllers").write_text("cpu io memory pids")
    (ours / "cgroup.subtree_control").write_text("")
    (ours / "cgroup.type").write_text("domain")
    mount = f"30 20 0:26 / {tmp_path}/cg rw,nosuid shared:4 - cgroup2 cgroup2 rw"
    return machine(tmp_path, mounts=[mount], memberships=["0::/flo.service"])


def test_v2_hands_down_its_controllers_after_the_worker_moved_to_a_leaf(v2: Path) -> None:
    tree = find_tree(v2)
    ours = v2.parent / "cg" / "flo.service"
    assert (tree.version, set(tree.folders)) == (2, {"memory", "pids", "cpu"})
    assert (ours / "flo.worker" / "cgroup.procs").read_text() == "0"
    assert (ours / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"


def test_v2_limits_are_written_to_one_folder_per_box(v2: Path) -> None:
    cgroups = Cgroups(find_tree(v2))
    cgroups.make(LIMITS)
    (box,) = (v2.parent / "cg" / "flo.service").glob("flo.*.*.*/box-1")
    assert (box / "memory.max").read_text() == str((100 + 16) << 20)
    assert (box / "memory.swap.max").read_text() == "0"
    assert (box / "pids.max").read_text() == "8"
    assert (box / "cpu.max").read_text() == "50000 100000"


def test_v2_tolls_are_read(v2: Path) -> None:
    group = Cgroups(find_tree(v2)).make(LIMITS)
    (box,) = (v2.parent / "cg" / "flo.service").glob("flo.*.*.*/box-1")
    (box / "memory.events").write_text("low 0\nhigh 0\nmax 9\noom 1\noom_kill 2\n")
    (box / "pids.events").write_text("max 3\n")
    (box / "memory.peak").write_text("4096\n")
    (box / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    tolls = group.read()
    assert (tolls.oom_kills, tolls.forks_refused, tolls.peak_memory_bytes, tolls.cpu_seconds) == (2, 3, 4096, 1.5)


def test_without_cgroups_nothing_is_held_and_the_reason_is_told(tmp_path: Path) -> None:
    tree = find_tree(machine(tmp_path, mounts=[], memberships=["0::/"]))
    assert Cgroups(tree).held == frozenset()
    assert tree.reasons["memory"] == "no cgroup file system is mounted"


def test_what_is_not_ours_to_write_is_told_with_the_fix(tmp_path: Path) -> None:
    mount = "30 20 0:26 / /proc/1 rw - cgroup2 cgroup2 rw"  # a folder that nobody can add to
    tree = find_tree(machine(tmp_path, mounts=[mount], memberships=["0::/"]))
    assert tree.folders == {}
    assert "Delegate=yes" in tree.reasons["memory"]


def test_cgroups_of_a_dead_worker_are_removed_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "pids").mkdir()
    mount = f"30 20 0:26 / {tmp_path}/pids rw - cgroup cgroup rw,pids"
    tree = find_tree(machine(tmp_path, mounts=[mount], memberships=["8:pids:/"]))
    namespace = str(Path("/proc/self/ns/pid").stat().st_ino)
    (tmp_path / "pids" / f"flo.{namespace}.999999999.5.a" / "box-1").mkdir(parents=True)
    (tmp_path / "pids" / "flo.1.999999999.5.a").mkdir()  # of another pid namespace: not ours to judge
    Cgroups(tree)
    assert not list((tmp_path / "pids").glob(f"flo.{namespace}.999999999.*"))
    assert (tmp_path / "pids" / "flo.1.999999999.5.a").is_dir()
