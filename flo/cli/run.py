"""`flo run`: a flow file, here and now, without a server."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from flo.cli import runner
from flo.cli.options import AsJSON, FlowFile, Input
from flo.errors import RunFailed


def run(
    file: FlowFile,
    *,
    payload: Input = "{}",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show each node's outputs and debug logs.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Run a flow file on this machine and show each node as it happens."""
    from flo.cli.live import Live

    live = Live(verbose=verbose)
    for said in runner.lines("run", file, "--input", payload, "--json" if as_json else "--events"):
        if "type" in said:
            live.show(said)
            continue
        if as_json:
            print(json.dumps(said, ensure_ascii=False, indent=2))
        else:
            live.summary(said)
        if said["status"] != "succeeded":
            raise typer.Exit(RunFailed.exit_code)
