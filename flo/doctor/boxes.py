"""Asks the workers' own probe which boxes can be made here, and which execution modes work with them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from flo.doctor.checks import Finding
from flo.doctor.probe import ask

#: Seconds; it makes a box in each of three ways.
_PATIENCE = 60
_FROM_ENVIRONMENT = "FLO_EXECUTION_MODE"


def boxes(environ: Mapping[str, str]) -> list[Finding]:
    """Say what works of boxes, their limits and the modes; one finding with the reason when it can't be asked."""
    said = ask(sys.executable, "-P", "-m", "workers.sandboxes.box", patience=_PATIENCE)
    try:
        return findings(json.loads(said.text), environ)
    except ValueError:
        return [Finding(name="boxes", ok=False, detail=said.text or "the probe said nothing", fix="run scripts/setup")]


def findings(report: Mapping[str, Any], environ: Mapping[str, str]) -> list[Finding]:
    """Put a probe's report into the words of a table. Pure."""
    chosen, fixes = report["chosen"], [way["fix"] for way in report["ways"] if way["fix"] and not way["works"]]
    found = [
        Finding(
            name="boxes",
            ok=chosen != "",
            detail=f"made by {chosen}" if chosen else "; ".join(f"{w['name']}: {w['detail']}" for w in report["ways"]),
            fix="; or ".join(dict.fromkeys(fixes)),
        )
    ]
    found += [_finding(f"box by {way['name']}", way) for way in report["ways"]]
    found += [_finding(f"box limit {limit['name']}", limit) for limit in report["limits"]]
    # Root is no end in itself: who is it, and what for, stands with the way that needs it.
    found += [_finding(fact["name"], fact) for fact in report["kernel"] if fact["name"] != "root"]
    return [*found, *_modes(report, environ.get(_FROM_ENVIRONMENT) or "")]


def _modes(report: Mapping[str, Any], wanted: str) -> list[Finding]:
    default = report["default_mode"]
    found = []
    for mode, answer in report["modes"].items():
        marks = [*(["the default here"] if mode == default else []), *(["set"] if mode == wanted else [])]
        if mode == "UNSANDBOXED":
            marks.append("nothing stands between flows and this machine")
        works = answer["works"]
        found.append(
            Finding(
                name=f"mode {mode}",
                ok=works,
                detail=("works" + "".join(f"; {mark}" for mark in marks)) if works else "needs a box",
                fix="" if works else answer["detail"],
                needed=mode == wanted,
            )
        )
    return found


def _finding(name: str, said: Mapping[str, Any]) -> Finding:
    return Finding(name=name, ok=said["works"], detail=said["detail"], fix=said["fix"])
