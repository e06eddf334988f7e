"""`flo doctor`: what works on this machine."""

from __future__ import annotations

import json
import os
from dataclasses import asdict

import typer

from flo.cli.options import AsJSON


def doctor(*, as_json: AsJSON = False) -> None:
    """Tell which sandboxes and backends work on this machine, and what to install for the others."""
    from concurrent.futures import ThreadPoolExecutor

    from flo.cli.tables import print_table
    from flo.doctor.boxes import boxes
    from flo.doctor.checks import ALL
    from flo.doctor.executors import http_executors

    with ThreadPoolExecutor() as threads:
        asked = threads.submit(boxes, os.environ)
        findings = list(threads.map(lambda check: check(os.environ), (*ALL, http_executors)))
        findings += asked.result()
    stopped_by = [finding.name for finding in findings if finding.needed and not finding.ok]
    if as_json:
        checks = [{**asdict(finding), "status": finding.status} for finding in findings]
        print(json.dumps({"ok": not stopped_by, "checks": checks}, indent=2))
    else:
        rows = [[f.name, f.status, f.detail, "" if f.ok else f.fix] for f in findings]
        print_table(["What", "State", "Found", "To have it"], rows, what="checks")
        print(f"`flo dev` can't run here: {', '.join(stopped_by)}" if stopped_by else "`flo dev` can run here.")
    if stopped_by:
        raise typer.Exit(1)
