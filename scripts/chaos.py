"""Chaos: real processes are killed, frozen and robbed of their broker's memory while runs flow.

Each run is a chain of HTTP calls to a witness in this process; every call carries the run's id and attempt. At the end
the witness and SQL must agree: what was accepted has finished, once; no attempt acted after a later one had begun; no
step's effect is missing; no number of a run's events is missing or doubled; no process and no file is left.

The last line printed is one JSON object: {"name", "machine", "figures"}. Exit code 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.chaosrig.flows import push
from scripts.chaosrig.judge import PROMISES, judge, leftovers
from scripts.chaosrig.load import Load, wait_for_the_end
from scripts.chaosrig.peers import compare
from scripts.chaosrig.recovery import kill_in_calm, recoveries, spreads
from scripts.chaosrig.rig import open_rig
from scripts.chaosrig.soak import soak
from scripts.chaosrig.trouble import Trouble
from scripts.chaosrig.witness import open_witness


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--carrier", choices=["redis", "sqs", "kafka"], default="redis")
    options.add_argument("--db", choices=["sqlite", "postgres"], default="sqlite")
    options.add_argument("--runs", type=int, default=2000, help="runs while things go wrong (default: %(default)s)")
    options.add_argument("--seed", type=int, default=0, help="0 takes one from the clock, and prints it")
    options.add_argument("--kills", type=int, default=12, help="kills in calm, for the time of recovery (%(default)s)")
    options.add_argument("--log", type=Path, help="keep what the processes logged in this file")
    options.add_argument("--patience", type=float, default=300.0, help="seconds to wait for the last runs to end")
    options.add_argument("--peers", action="store_true", help="kill Celery, dramatiq, huey and taskiq the same way")
    options.add_argument("--soak", type=float, nargs="?", const=10.0, metavar="MINUTES", help="watch memory (10)")
    given = options.parse_args()
    seed = given.seed or time.time_ns() % 1_000_000
    print(f"chaos: {given.carrier}, {given.db}, {given.runs} runs, seed {seed}", file=sys.stderr)
    if given.peers:
        return report_peers(asyncio.run(compare(given.runs, given.kills)), given.kills)
    if given.soak is not None:
        figures = asyncio.run(soak(given.carrier, given.db, given.soak, random.Random(seed)))
        return report("soak", {"carrier": given.carrier, "db": given.db, "minutes": given.soak, **figures})
    figures = asyncio.run(chaos(given, random.Random(seed)))
    return report("chaos", {"carrier": given.carrier, "db": given.db, "seed": seed, **figures})


async def chaos(given: argparse.Namespace, chance: random.Random) -> dict[str, Any]:
    """Let runs flow through trouble, then through kills in calm; judge all of them."""
    async with open_witness() as witness, open_rig(given.carrier, given.db) as rig:
        await push(rig, witness.port)
        load, trouble = Load(rig, chance), Trouble(rig, chance)
        started = time.monotonic()
        making = asyncio.create_task(trouble.make())
        await load.feed(given.runs)
        trouble.calm = True
        await making
        await rig.heal()
        amid_trouble = list(rig.killed)
        await wait_for_the_end(rig, patience=given.patience)
        took = time.monotonic() - started
        in_calm = await kill_in_calm(rig, load, given.kills)
        await wait_for_the_end(rig, patience=given.patience)
        figures = await judge(rig.database, witness, load.accepted)
        recovered = {
            **spreads("recovery", await recoveries(rig.database, in_calm)),
            **spreads("recovery_amid_trouble", await recoveries(rig.database, amid_trouble)),
        }
        await rig.stop()
        figures |= leftovers(rig.home, rig.scratch)
        if given.log is not None:
            shutil.copy(rig.log, given.log)
    return {
        **figures,
        "asked_again": load.asked_again,
        **recovered,
        "lease_ms": round(rig.lease * 1000),
        "seconds": round(took, 1),
        "trouble": dict(trouble.done),
    }


def report(name: str, figures: dict[str, Any]) -> int:
    """Print the figures for people and for programs; answer the exit code."""
    table = Table("figure", "value", title=name)
    for figure, value in figures.items():
        broken = figure in PROMISES and value
        table.add_row(figure, f"[bold red]{value}[/]" if broken else str(value))
    Console().print(table)
    print(json.dumps({"name": name, "machine": machine(), "figures": figures}))
    broken = [promise for promise in PROMISES if figures[promise]]
    if broken or figures["accepted"] != figures["finished"]:
        print(f"{name}: broken promises: {', '.join(broken) or 'not everything finished'}", file=sys.stderr)
        return 1
    return 0


def report_peers(figures: dict[str, dict[str, Any]], kills: int) -> int:
    """Print Flo's row beside its peers'; Flo's alone decides."""
    table = Table("queue", "jobs", "lost", "doubled", title=f"{kills} kills of all workers")
    for name, row in figures.items():
        table.add_row(name, *(str(row[column]) for column in ("jobs", "lost", "doubled")))
    Console().print(table)
    print(json.dumps({"name": "chaos-peers", "machine": machine(), "figures": {"kills": kills, **figures}}))
    return 1 if figures["flo"]["lost"] else 0


def machine() -> str:
    python, day = platform.python_version(), datetime.now(UTC).date()
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {python}, {day}"


if __name__ == "__main__":
    sys.exit(main())
