"""Puts the commands together, and words every mistake."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from flo.cli import processes
from flo.cli.dead_letters import dead_letters
from flo.cli.dev import dev
from flo.cli.doctor import doctor
from flo.cli.hub import hub
from flo.cli.init import init
from flo.cli.invoke import invoke
from flo.cli.limits import limits
from flo.cli.logs import logs
from flo.cli.nodes import nodes
from flo.cli.push import push
from flo.cli.queues import queues
from flo.cli.run import run
from flo.cli.runs import runs
from flo.cli.schedules import schedules
from flo.cli.schema import schema
from flo.cli.validate import validate
from flo.errors import FloError


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"flo {version('flo')}")
        raise typer.Exit


app = typer.Typer(
    name="flo",
    help="Runs other people's flows safely and fast. Start with `flo dev`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def flo(
    *,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None: ...


_START = "Start Flo"
_FILES = "Flow files on this machine, without a server"
_SERVER = "A running server"
_PARTS = "Flo in parts, one process each"

app.command(rich_help_panel=_START)(dev)
app.command(rich_help_panel=_START)(doctor)

app.command(rich_help_panel=_FILES)(init)
app.command(rich_help_panel=_FILES)(validate)
app.command(rich_help_panel=_FILES)(run)
app.command(rich_help_panel=_FILES)(nodes)
app.command(rich_help_panel=_FILES)(schema)
app.add_typer(hub, name="hub", rich_help_panel=_FILES)

app.command(rich_help_panel=_SERVER)(push)
app.command(rich_help_panel=_SERVER)(invoke)
app.add_typer(runs, name="runs", rich_help_panel=_SERVER)
app.command(rich_help_panel=_SERVER)(logs)
app.command(rich_help_panel=_SERVER)(schedules)
app.command(rich_help_panel=_SERVER)(queues)
app.command(rich_help_panel=_SERVER)(limits)
app.add_typer(dead_letters, name="dead-letters", rich_help_panel=_SERVER)

for _part in (processes.api, processes.scheduler, processes.worker, processes.executor, processes.flower):
    app.command(rich_help_panel=_PARTS, context_settings=processes.PASS_ON)(_part)


def main() -> None:
    """Run the command line; exit code 0 is ok, 1 a failed run or server, 2 the user's mistake."""
    try:
        app()
    except FloError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output (`| head`) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
