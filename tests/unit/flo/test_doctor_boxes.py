"""What `flo doctor` makes of the probe's report."""

from __future__ import annotations

from typing import Any

from flo.doctor.boxes import findings

BAD = {"works": False, "detail": "refused", "fix": "run the worker as root"}
REPORT: dict[str, Any] = {
    "chosen": "bubblewrap",
    "default_mode": "SANDBOX_CODE_AND_PROCESS",
    "modes": {mode: {"works": True, "detail": ""} for mode in ("SANDBOX_PROCESS", "SANDBOX_CODE_AND_PROCESS")},
    "ways": [{"name": "zygote", **BAD}, {"name": "bubblewrap", "works": True, "detail": "ran a box", "fix": ""}],
    "limits": [{"name": "memory", **BAD}],
    "kernel": [{"name": "root", **BAD}, {"name": "seccomp", "works": True, "detail": "errno", "fix": ""}],
}  # fmt: skip
NO_BOX = {
    **REPORT, "chosen": "", "default_mode": "SANDBOX_CODE_ONLY", "ways": [{"name": "zygote", **BAD}],
    "modes": {
        "UNSANDBOXED": {"works": True, "detail": ""}, "SANDBOX_CODE_ONLY": {"works": True, "detail": ""},
        "SANDBOX_PROCESS": {"works": False, "detail": "no way into a box works"},
    },
}  # fmt: skip


def by_name(report: dict[str, Any], environ: dict[str, str]) -> dict[str, Any]:
    return {finding.name: finding for finding in findings(report, environ)}


def test_one_way_that_works_is_enough() -> None:
    found = by_name(REPORT, {})
    assert found["boxes"].ok
    assert found["boxes"].detail == "made by bubblewrap"
    assert not found["box by zygote"].ok
    assert found["mode SANDBOX_CODE_AND_PROCESS"].detail == "works; the default here"


def test_without_a_way_the_fix_of_each_is_told_and_nothing_is_required() -> None:
    found = by_name(NO_BOX, {})
    assert (found["boxes"].ok, found["boxes"].fix) == (False, "run the worker as root")
    assert (found["mode SANDBOX_PROCESS"].ok, found["mode SANDBOX_PROCESS"].fix) == (False, "no way into a box works")
    assert found["mode UNSANDBOXED"].detail == "works; nothing stands between flows and this machine"
    assert not any(finding.needed for finding in found.values())


def test_a_mode_that_is_set_is_required() -> None:
    found = by_name(NO_BOX, {"FLO_EXECUTION_MODE": "SANDBOX_PROCESS"})
    assert [name for name, finding in found.items() if finding.needed] == ["mode SANDBOX_PROCESS"]
