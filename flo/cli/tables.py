"""Prints listings: a table for people, plain and uncut where the output is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: How the state of a run looks.
_STYLES = {
    "succeeded": "green",
    "running": "cyan",
    "waiting": "yellow",
    "queued": "blue",
    "cancelled": "dim",
    "online": "green",
    "ok": "green",
    "missing": "yellow",
    "failed": "red",
    "timed_out": "red",
    "memory_exceeded": "red",
    "output_exceeded": "red",
    "dead": "bold red",
}


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, what: str) -> None:
    """Print the rows; where there are none, say so."""
    # What is piped away is read by a program or searched: nothing is cut there.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)
    if not rows:
        console.print(f"no {what}")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        # An id that is cut in two can't be copied.
        table.add_column(column, overflow="fold", no_wrap=column == "Run")
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    console.print(table)


def local_time(iso: str | None) -> str:
    """Write an ISO 8601 time in this machine's time zone."""
    if iso is None:
        return "-"
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def elapsed(begin: str | None, end: str | None) -> str:
    """Say how long it took, from two ISO 8601 times."""
    if begin is None or end is None:
        return "-"
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"
