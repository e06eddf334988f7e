"""`flo dead-letters`: runs that were given up."""

from __future__ import annotations

import json

import typer

from flo.cli.options import AsJSON, Key, Limit, Url
from flo.cli.runs import RunId

dead_letters = typer.Typer(help="Runs that were given up.", invoke_without_command=True)


@dead_letters.callback()
def index(
    context: typer.Context, *, limit: Limit = 100, url: Url = None, key: Key = None, as_json: AsJSON = False
) -> None:
    """List the runs that were given up, each with the reason."""
    if context.invoked_subcommand is not None:
        return

    from flo import calls
    from flo.cli.tables import local_time, print_table
    from flo.client import FloClient

    with FloClient(url, key=key) as client:
        found = client.send(calls.dead_letters(limit=limit))["items"]
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return
    print_table(
        ["Run", "App", "Flow", "Lane", "Attempts", "Given up", "Reason"],
        [
            [
                run["run_id"],
                run["app"],
                run["flow"],
                run["lane"],
                str(run["attempt"]),
                local_time(run["finished_at"]),
                run["error"]["message"] if run["error"] else "-",
            ]
            for run in found
        ],
        what="dead letters",
    )


@dead_letters.command()
def redrive(run_id: RunId, *, url: Url = None, key: Key = None, as_json: AsJSON = False) -> None:
    """Queue a run that was given up once more."""
    from flo import calls
    from flo.client import FloClient

    with FloClient(url, key=key) as client:
        answer = client.send(calls.redrive(run_id))
    print(json.dumps(answer, ensure_ascii=False, indent=2) if as_json else f"{answer['run_id']} {answer['status']}")
