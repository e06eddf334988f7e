"""`flo logs`: what happened in a run."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from flo.cli.options import AsJSON, Key, Url
from flo.cli.runs import RunId


def logs(
    run_id: RunId,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is over.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show each node's outputs and debug logs.")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJSON = False,
) -> None:
    """Show what happened in a run; --follow goes on live, through any break of the connection."""
    from flo.cli.following import follow_run
    from flo.cli.live import Live
    from flo.client import FloClient

    with FloClient(url, key=key) as client:
        if follow:
            follow_run(client, client.follow(run_id), as_json=as_json, verbose=verbose)
            return
        live, after = Live(verbose=verbose), 0
        while events := client.events(run_id, after=after):
            for event in events:
                if as_json:
                    print(json.dumps(event, ensure_ascii=False))
                else:
                    live.show(event)
            after = events[-1]["seq"]
            if events[-1]["type"] == "run_completed":
                break
