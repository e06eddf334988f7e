"""Shows a run while it happens, one line to a happening, and sums it up at its end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from flo.cli.tables import elapsed
from flo.wire import JSONValue, Run, RunEvent

#: What stands in for the pictures where the terminal's encoding has none.
_PLAIN = {"▶️ ": ">", "⚡": "*", "✅": "ok", "❌": "x", "🔁": "~", "⏸️ ": "=", "✨": "ok", "📊": "#", "💥": "x", "│": "|"}


class Live:
    """Prints happenings as they come; `verbose` adds each node's outputs and all levels of log."""

    def __init__(self, *, verbose: bool = False) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._verbose = verbose
        self._pictures = (sys.stdout.encoding or "").lower().startswith("utf")
        self._seen: dict[str, Callable[[RunEvent], None]] = {
            "run_queued": self._queued,
            "run_started": self._started,
            "node_started": self._node_started,
            "node_completed": self._node_completed,
            "node_failed": self._node_failed,
            "node_retrying": self._node_retrying,
            "log": self._log,
            "progress": self._progress,
            "data": self._data,
            "run_waiting": self._waiting,
        }

    def show(self, event: RunEvent) -> None:
        """Print one happening; types that are not known here are left out."""
        if event["type"] in self._seen:
            self._seen[event["type"]](event)

    def summary(self, run: Run) -> None:
        """Print how the run ended and what it gave."""
        took = elapsed(run["started_at"] or run["created_at"], run["finished_at"])
        if run["status"] == "succeeded":
            self._print("✨", f"Flow completed successfully in {took}", "bold green")
        else:
            error = run["error"]
            why = f": {_where(error.get('node_id'))}{error['message']}" if error else ""
            self._print("💥", f"Flow {run['status'].replace('_', ' ')} after {took}{why}", "bold red")
        done = sum(node["status"] == "succeeded" for node in run["nodes"])
        self._print("📊", "Execution Summary:", "bold")
        self._indent(f"Run: {run['run_id']}")
        self._indent(f"Completed: {done}/{len(run['nodes'])} nodes")
        if run["status"] == "succeeded":
            self._indent(f"Result: {_pretty(run['result'], indent='   ')}")
        for node in run["nodes"] if self._verbose else ():
            self._indent(f"Outputs of {node['id']}: {_pretty(node['outputs'], indent='   ')}")

    def _queued(self, event: RunEvent) -> None:
        if self._verbose:
            self._print("⏸️ ", f"Queued on lane {event.get('lane', '?')}", "dim")

    def _started(self, event: RunEvent) -> None:
        attempt = event.get("attempt", 1)
        self._print("▶️ ", "Flow started" + (f" (attempt {attempt})" if attempt > 1 else ""), "bold")

    def _node_started(self, event: RunEvent) -> None:
        self._print("⚡", f"Starting node: {event.get('node_id')} ({event.get('node_type')})", "cyan")

    def _node_completed(self, event: RunEvent) -> None:
        took = f"{event.get('duration_ms', 0):.0f} ms"
        self._print("✅", f"Node {event.get('node_id')} completed in {took}", "green")
        if self._verbose and event.get("outputs"):
            self._indent(_pretty(event.get("outputs"), indent="   "))

    def _node_failed(self, event: RunEvent) -> None:
        self._print("❌", f"Node {event.get('node_id')} failed: {_why(event)}", "red")

    def _node_retrying(self, event: RunEvent) -> None:
        pause = event.get("delay_ms", 0)
        self._print(
            "🔁", f"Node {event.get('node_id')} failed, trying again in {pause:.0f} ms: {_why(event)}", "yellow"
        )

    def _log(self, event: RunEvent) -> None:
        level = event.get("level", "info")
        if level != "debug" or self._verbose:
            style = {"error": "red", "warning": "yellow", "warn": "yellow", "debug": "dim"}.get(level, "")
            self._print("  │", f"{_where(event.get('node_id'))}{event.get('message', '')}", style)

    def _progress(self, event: RunEvent) -> None:
        percent = f"{event.get('percent', 0):.0f} %"
        self._print("  │", f"{_where(event.get('node_id'))}{percent} {event.get('message') or ''}".rstrip(), "blue")

    def _data(self, event: RunEvent) -> None:
        if self._verbose:
            value = _pretty(event.get("value"), indent="   ")
            self._print("  │", f"{_where(event.get('node_id'))}{event.get('port')} = {value}", "dim")

    def _waiting(self, event: RunEvent) -> None:
        until = event.get("until")
        self._print("⏸️ ", f"Waiting: {event.get('reason')}" + (f", until {until}" if until else ""), "yellow")

    def _print(self, picture: str, text: str, style: str = "") -> None:
        sign = picture if self._pictures else picture.replace(picture.strip(), _PLAIN.get(picture, _PLAIN["│"]))
        self._console.print(Text(f"{sign} {text}", style=style))

    def _indent(self, text: str) -> None:
        self._console.print(Text(f"   {text}"))


def _where(node_id: str | None) -> str:
    return f"{node_id}: " if node_id else ""


def _why(event: RunEvent) -> str:
    error = event.get("error")
    return error["message"] if error else "no reason was given"


def _pretty(value: JSONValue, *, indent: str) -> str:
    """Write JSON on one line if it is short."""
    line = json.dumps(value, ensure_ascii=False)
    return line if len(line) <= 100 else json.dumps(value, ensure_ascii=False, indent=2).replace("\n", f"\n{indent}")
