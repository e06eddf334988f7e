"""What is said of machines that are not this one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from schemas.settings import ExecutionMode
from workers.sandboxes.box.cgroups import Tree
from workers.sandboxes.box.facts import Facts, Trial
from workers.sandboxes.box.probe import Finding, default_mode, modes_here, report_on

PLACE = Path("/sys/fs/cgroup")
SWITCH = "/proc/sys/kernel/unprivileged_userns_clone"
APPARMOR = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"


def trials(*working: str) -> tuple[Trial, ...]:
    took = timedelta(seconds=0.2)
    return tuple(
        Trial(way=way, took=took) if way in working else Trial(way=way, trouble="refused")
        for way in ("zygote", "zygote-userns", "bubblewrap")
    )


SERVER = Facts(
    trials=trials("zygote", "zygote-userns", "bubblewrap"),
    tree=Tree(2, dict.fromkeys(("memory", "pids", "cpu"), PLACE), {}),
    machine="x86_64",
    machine_is_known=True,
    release="6.1.0-13-amd64",
    user=0,
    may_administer=True,
    seccomp="kill_process errno allow",
    switches={SWITCH: "1"},
    bubblewrap="/usr/bin/bwrap",
    install_bubblewrap="sudo apt-get install bubblewrap",
    in_container=False,
)
DESKTOP = replace(SERVER, trials=trials("zygote-userns", "bubblewrap"), user=1000, may_administer=False)
#: User namespaces are closed, bubblewrap is not there.
CLOSED = replace(DESKTOP, trials=trials(), switches={SWITCH: "0"}, bubblewrap="")
CONTAINER = replace(SERVER, trials=trials(), may_administer=False, bubblewrap="", in_container=True)


def finding(facts: Facts, name: str) -> Finding:
    report = report_on(facts)
    return next(one for one in (*report.ways, *report.limits, *report.kernel) if one.name == name)


@pytest.mark.parametrize(
    ("facts", "chosen", "mode"),
    [
        (SERVER, "zygote", ExecutionMode.SANDBOX_CODE_AND_PROCESS),
        (DESKTOP, "zygote-userns", ExecutionMode.SANDBOX_CODE_AND_PROCESS),
        (replace(DESKTOP, trials=trials("bubblewrap")), "bubblewrap", ExecutionMode.SANDBOX_CODE_AND_PROCESS),
        (CLOSED, "", ExecutionMode.SANDBOX_CODE_ONLY),
        (CONTAINER, "", ExecutionMode.SANDBOX_CODE_ONLY),
    ],
)
def test_the_default_is_the_strongest_mode_that_works(facts: Facts, chosen: str, mode: ExecutionMode) -> None:
    report = report_on(facts)
    assert (report.chosen, default_mode(report)) == (chosen, mode)


def test_where_a_box_works_every_mode_does() -> None:
    assert set(modes_here(report_on(DESKTOP)).values()) == {""}


def test_where_none_works_the_modes_with_boxes_say_every_way_out() -> None:
    why = modes_here(report_on(CLOSED))
    assert why[ExecutionMode.UNSANDBOXED] == why[ExecutionMode.SANDBOX_CODE_ONLY] == ""
    assert why[ExecutionMode.SANDBOX_PROCESS] == why[ExecutionMode.SANDBOX_CODE_AND_PROCESS]
    assert why[ExecutionMode.SANDBOX_PROCESS] == (
        "no way into a box works; any of these is enough: run the worker as root; "
        "or sysctl -w kernel.unprivileged_userns_clone=1; or sudo apt-get install bubblewrap"
    )


@pytest.mark.parametrize(
    ("facts", "way", "fix"),
    [
        (CLOSED, "bubblewrap", "sudo apt-get install bubblewrap"),
        (replace(CLOSED, bubblewrap="/usr/bin/bwrap"), "bubblewrap", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (replace(CLOSED, switches={APPARMOR: "1"}), "zygote-userns",
         "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or bubblewrap with its AppArmor profile"),
        (replace(CLOSED, release="5.10.0-28-amd64"), "zygote-userns", "use Linux 5.12 or newer"),
        (CLOSED, "zygote", "run the worker as root"),
        (replace(SERVER, trials=trials(), may_administer=False), "zygote", "let root keep CAP_SYS_ADMIN"),
        (CONTAINER, "zygote", "start the container with --privileged, as root"),
        (CONTAINER, "zygote-userns",
         "start the container with --security-opt seccomp=unconfined --security-opt systempaths=unconfined"),
        (replace(CLOSED, machine="riscv64", machine_is_known=False), "zygote",
         "use a machine with an x86_64 or aarch64 processor"),
    ],
)  # fmt: skip
def test_a_way_that_does_not_work_says_what_to_do(facts: Facts, way: str, fix: str) -> None:
    assert (finding(facts, way).works, finding(facts, way).fix) == (False, fix)


@pytest.mark.parametrize(
    ("tree", "detail", "fix"),
    [
        (Tree(0, {}, {}), "no cgroup file system is mounted", "mount one: mount -t cgroup2 none /sys/fs/cgroup"),
        (Tree(1, {}, {"memory": "/x: Permission denied"}), "/x: Permission denied",
         "run the worker as root, or hand it a cgroup of its own to write in"),
        (Tree(1, {"pids": PLACE}, {}), "no hierarchy has this controller",
         "run the worker as root, or hand it a cgroup of its own to write in"),
        (Tree(2, {"pids": PLACE}, {"memory": "/x: the controller is not handed down to here"}),
         "/x: the controller is not handed down to here",
         "run the worker as root, or in a delegated cgroup (systemd: Delegate=yes)"),
    ],
)  # fmt: skip
def test_a_limit_without_its_cgroup_says_what_stands_in_and_what_to_do(tree: Tree, detail: str, fix: str) -> None:
    memory = finding(replace(DESKTOP, tree=tree), "memory")
    assert not memory.works
    assert memory.detail == f"{detail}; the limit on memory holds for each process by rlimits, not for the box"
    assert memory.fix == fix


@pytest.mark.parametrize("version", [1, 2])
def test_a_limit_with_its_cgroup_says_where_that_is(version: int) -> None:
    facts = replace(DESKTOP, tree=Tree(version, {"memory": PLACE}, {}))
    assert finding(facts, "memory") == Finding(
        name="memory", works=True, detail=f"cgroup v{version} at /sys/fs/cgroup"
    )  # fmt: skip


def test_a_kernel_without_seccomp_is_told() -> None:
    assert not finding(replace(SERVER, seccomp=""), "seccomp").works


def test_the_report_is_plain_json() -> None:
    said = report_on(CLOSED).as_json()
    assert (said["chosen"], said["default_mode"]) == ("", "SANDBOX_CODE_ONLY")
    assert isinstance(said["modes"], dict)
    assert said["modes"]["UNSANDBOXED"] == {"works": True, "detail": ""}
