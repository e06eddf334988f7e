"""Puts the commands together, and words every mistake."""

from __future__ import annotations

import os
import sys

import typer

from flo.cli.dev import dev
from flo.errors import FloError

app = typer.Typer(
    name="flo",
    help="Runs other people's flows safely and fast. Start with `flo dev`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_SERVER, _LOCAL, _REMOTE, _PARTS = "Run Flo", "Flow files, without a server", "A running server", "Flo in parts"

app.command(rich_help_panel=_SERVER)(dev)


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
