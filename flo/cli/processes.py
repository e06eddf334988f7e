"""`flo api|scheduler|worker|executor|flower`: Flo in parts, one process each, for compose and Kubernetes.

Each becomes the process it starts (exec), so that signals and exit codes are that process's own.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

#: Everything after the command's name goes to the process as it is, `--help` too.
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def api(context: typer.Context) -> None:
    """Serve the HTTP API: --host HOST --port PORT."""
    _become("scheduler", "api", *context.args)


def scheduler(context: typer.Context) -> None:
    """Run the clock: cron, poll, outbox relay and reaper."""
    _become("scheduler", "tick", *context.args)


def worker(context: typer.Context) -> None:
    """Take jobs off the lanes: --name NAME --lanes LANES --group GROUP --concurrency N."""
    _become("workers", *context.args)


def executor(context: typer.Context) -> None:
    """Execute what workers elsewhere send over HTTP: --host HOST --port PORT --concurrency N."""
    _become("workers.runner.server", *context.args)


def flower(context: typer.Context) -> None:
    """Show workers and jobs in a browser: --address HOST --port PORT."""
    _become("dispatch.telemetry.flower", *context.args)


def _become(module: str, *arguments: str) -> NoReturn:
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])
