"""Say what works on a machine, why the rest does not, and what to do about it: for `flo doctor`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import assert_never

from schemas.json import JSONObject, JSONValue
from schemas.settings import ExecutionMode
from workers.sandboxes.box.facts import SWITCHES, Facts, Trial, gather

#: The oldest kernel that the ways by zygote work on: mount_setattr(2).
_ZYGOTE_KERNEL = (5, 12)
_TURN_ON = {
    "/proc/sys/kernel/unprivileged_userns_clone": "sysctl -w kernel.unprivileged_userns_clone=1",
    "/proc/sys/user/max_user_namespaces": "sysctl -w user.max_user_namespaces=15000",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or bubblewrap with its AppArmor profile"
    ),
}
#: What a controller is needed for, and what stands in for it.
_CONTROLLERS = {
    "memory": "the limit on memory holds for each process by rlimits, not for the box",
    "pids": "the limit on processes is an rlimit",
    "cpu": "the limit on processors is not held",
}


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

    def as_json(self) -> JSONObject:
        """Say it as `flo doctor` reads it."""
        return {
            "chosen": self.chosen,
            "cgroup_version": self.cgroup_version,
            "default_mode": str(default_mode(self)),
            "modes": {str(mode): {"works": not why, "detail": why} for mode, why in modes_here(self).items()},
            "ways": _as_list(self.ways),
            "limits": _as_list(self.limits),
            "kernel": _as_list(self.kernel),
        }


async def probe() -> Report:
    """Try this machine out; never raises for what it lacks."""
    return report_on(await gather())


def report_on(facts: Facts) -> Report:
    return Report(
        ways=tuple(_way(trial, facts) for trial in facts.trials),
        limits=tuple(_limit(name, facts) for name in _CONTROLLERS),
        kernel=(_seccomp(facts), _user_namespaces(facts), _version(facts), _root(facts)),
        cgroup_version=facts.tree.version,
    )


def modes_here(report: Report) -> dict[ExecutionMode, str]:
    """Say of each mode why it does not work here, as far as boxes go; empty: it does. V8 is tried elsewhere."""
    return {mode: _why_not(mode, report) for mode in ExecutionMode}


def default_mode(report: Report) -> ExecutionMode:
    """Choose the strongest mode that works here; never one without a sandbox."""
    return ExecutionMode.SANDBOX_CODE_AND_PROCESS if report.chosen else ExecutionMode.SANDBOX_CODE_ONLY


def _why_not(mode: ExecutionMode, report: Report) -> str:
    match mode:
        case ExecutionMode.UNSANDBOXED | ExecutionMode.SANDBOX_CODE_ONLY:
            return ""
        case ExecutionMode.SANDBOX_PROCESS | ExecutionMode.SANDBOX_CODE_AND_PROCESS:
            if report.chosen:
                return ""
            fixes = dict.fromkeys(way.fix for way in report.ways if way.fix)
            return f"no way into a box works; any of these is enough: {'; or '.join(fixes)}"
        case _:
            assert_never(mode)


def _way(trial: Trial, facts: Facts) -> Finding:
    if trial.trouble:
        return Finding(name=trial.way, works=False, detail=trial.trouble, fix=_fix(trial.way, facts))
    seconds = trial.took.total_seconds()
    return Finding(
        name=trial.way, works=True, detail=f"ran a box, its start included, in {seconds:.2f} s", took=trial.took
    )


def _fix(way: str, facts: Facts) -> str:
    closed = [_TURN_ON[path] for path in _closed(facts)]
    if not facts.machine_is_known:
        return "use a machine with an x86_64 or aarch64 processor"
    match way:
        case "zygote":
            if facts.in_container:
                return "start the container with --privileged, as root"
            return "run the worker as root" if facts.user != 0 else "let root keep CAP_SYS_ADMIN"
        case "bubblewrap" if not facts.bubblewrap:
            return facts.install_bubblewrap
        case "zygote-userns" if _release(facts) < _ZYGOTE_KERNEL:
            return f"use Linux {'.'.join(map(str, _ZYGOTE_KERNEL))} or newer"
    if closed:
        return "; ".join(closed)
    if facts.in_container:
        return "start the container with --security-opt seccomp=unconfined --security-opt systempaths=unconfined"
    return ""


def _limit(name: str, facts: Facts) -> Finding:
    tree = facts.tree
    if name in tree.folders:
        return Finding(name=name, works=True, detail=f"cgroup v{tree.version} at {tree.folders[name]}")
    match tree.version:
        case 0:
            why, fix = "no cgroup file system is mounted", "mount one: mount -t cgroup2 none /sys/fs/cgroup"
        case 1:
            why = tree.reasons.get(name, "no hierarchy has this controller")
            fix = "run the worker as root, or hand it a cgroup of its own to write in"
        case _:
            why = tree.reasons.get(name, "the controller is not handed down to here")
            fix = "run the worker as root, or in a delegated cgroup (systemd: Delegate=yes)"
    if facts.in_container and tree.version:
        fix = "start the container with --privileged, or with --cgroupns=host and /sys/fs/cgroup writable"
    return Finding(name=name, works=False, detail=f"{why}; {_CONTROLLERS[name]}", fix=fix)


def _seccomp(facts: Facts) -> Finding:
    works = "errno" in facts.seccomp.split()
    return Finding(
        name="seccomp",
        works=works,
        detail=facts.seccomp or "the kernel has no seccomp filters",
        fix="" if works else "use a kernel with CONFIG_SECCOMP_FILTER; no way into a box works without",
    )


def _user_namespaces(facts: Facts) -> Finding:
    closed = _closed(facts)
    return Finding(
        name="user namespaces",
        works=not closed,
        detail=f"closed to users by {', '.join(closed)}" if closed else "open to users",
        fix="; ".join(_TURN_ON[path] for path in closed),
    )


def _version(facts: Facts) -> Finding:
    works = facts.machine_is_known and _release(facts) >= _ZYGOTE_KERNEL
    newer = f"the ways by zygote need Linux {'.'.join(map(str, _ZYGOTE_KERNEL))} or newer, on x86_64 or aarch64"
    return Finding(name="kernel", works=works, detail=f"{facts.release} on {facts.machine}", fix="" if works else newer)


def _root(facts: Facts) -> Finding:
    lacks = "" if facts.may_administer else ", without CAP_SYS_ADMIN" if facts.user == 0 else ""
    return Finding(name="root", works=facts.may_administer, detail=f"uid {facts.user}{lacks}")


def _closed(facts: Facts) -> list[str]:
    return [path for path, bad in SWITCHES.items() if facts.switches.get(path) == bad]


def _release(facts: Facts) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", facts.release)[:2])


def _as_list(findings: tuple[Finding, ...]) -> list[JSONValue]:
    return [
        {"name": one.name, "works": one.works, "detail": one.detail, "fix": one.fix} for one in findings
    ]  # fmt: skip


__all__ = ["Finding", "Report", "default_mode", "modes_here", "probe", "report_on"]
