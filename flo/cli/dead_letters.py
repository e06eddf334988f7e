"""`flo dead-letters`: runs that were given up, and messages that no worker could read."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from flo.cli.options import App, AsJSON, Key, Limit, Url

dead_letters = typer.Typer(
    help="Runs that were given up, and messages that were unreadable.", invoke_without_command=True
)


@dead_letters.callback()
def index(
    context: typer.Context, *, limit: Limit = 100, url: Url = None, key: Key = None, as_json: AsJSON = False
) -> None:
    """List the runs that were given up, and the messages that no worker could read, each with the reason."""
    if context.invoked_subcommand is not None:
        return

    from flo import calls
    from flo.cli.tables import print_table
    from flo.client import FloClient

    with FloClient(url, key=key) as client:
        found = client.send(calls.dead_letters(limit=limit))["items"]
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return
    print_table(
        ["Kind", "Id", "App", "Flow", "Lane", "Attempts", "Since", "Reason"],
        [_run(one) if one["kind"] == "run" else _message(one) for one in found],
        what="dead letters",
    )


@dead_letters.command()
def show(
    name: Annotated[str, typer.Argument(metavar="ID", help="The run's or message's id, as the list shows it.")],
    *,
    url: Url = None,
    key: Key = None,
    as_json: AsJSON = False,
) -> None:
    """Show a run that was given up with every try at it, or an unreadable message with its beginning."""
    from flo import calls
    from flo.client import FloClient

    with FloClient(url, key=key) as client:
        found = client.send(calls.dead_letter(name))
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
    elif found["kind"] == "run":
        _show_run(found)
    else:
        _show_message(found)


@dead_letters.command()
def redrive(
    run_id: Annotated[str | None, typer.Argument(metavar="RUN", help="The run's id, as the list shows it.")] = None,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="Every run that was given up, or those of --app, --flow.")
    ] = False,
    app: App = None,
    flow: Annotated[str | None, typer.Option("--flow", help="With --all: only this flow's.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJSON = False,
) -> None:
    """Queue a run that was given up once more, or all of them."""
    from flo import calls
    from flo.client import FloClient
    from flo.errors import Mistake

    if every == (run_id is not None):
        raise Mistake("name a run to redrive, or give --all, and not both; `flo dead-letters` lists them")
    if flow is not None and not every:
        raise Mistake("--flow says whose runs --all redrives: give --all with it, or leave it out to redrive one run")
    with FloClient(url, key=key) as client:
        if run_id is not None:
            answer = client.send(calls.redrive(run_id))
            said = f"{answer['run_id']} {answer['status']}"
        else:
            answer = {"redriven": 0, "more": True}
            while answer["more"]:
                page = client.send(calls.redrive_all(app=app, flow=flow))
                answer = {"redriven": answer["redriven"] + page["redriven"], "more": page["more"]}
            said = f"{answer['redriven']} {'run' if answer['redriven'] == 1 else 'runs'} queued"
    print(json.dumps(answer, ensure_ascii=False, indent=2) if as_json else said)


@dead_letters.command()
def discard(
    message_id: Annotated[str, typer.Argument(metavar="MESSAGE", help="The message's id, as the list shows it.")],
    *,
    url: Url = None,
    key: Key = None,
) -> None:
    """Forget a message that no worker could read."""
    from flo import calls
    from flo.client import FloClient

    with FloClient(url, key=key) as client:
        client.send(calls.discard(message_id))
    print(f"{message_id} discarded")


def _run(run: dict[str, Any]) -> list[str]:
    from flo.cli.tables import local_time

    return [
        "run",
        run["run_id"],
        run["app"],
        run["flow"],
        run["lane"],
        str(run["attempt"]),
        local_time(run["finished_at"]),
        run["error"]["message"] if run["error"] else "-",
    ]


def _message(message: dict[str, Any]) -> list[str]:
    from flo.cli.tables import local_time

    lane = f"{message['carrier']}: {message['lane']}"
    return ["message", message["id"], "-", "-", lane, "-", local_time(message["received_at"]), message["reason"]]


def _show_run(run: dict[str, Any]) -> None:
    from flo.cli.tables import local_time, print_table

    print(f"run      {run['run_id']}")
    print(f"flow     {run['app']}/{run['flow']} version {run['version']}, by event {run['event']}, lane {run['lane']}")
    print(f"since    {local_time(run['finished_at'])}")
    print(f"reason   {run['error']['message'] if run['error'] else '-'}")
    print(f"payload  {json.dumps(run['payload'], ensure_ascii=False)}")
    print_table(
        ["Attempt", "Worker", "Started", "Ended", "Outcome", "Reason"],
        [
            [
                str(one["attempt"]),
                one["worker"],
                local_time(one["started_at"]),
                local_time(one["finished_at"]),
                one["outcome"] or "-",
                one["reason"] or "-",
            ]
            for one in run["attempts"]
        ],
        what="attempts",
    )


def _show_message(message: dict[str, Any]) -> None:
    from flo.cli.tables import local_time

    print(f"message  {message['id']}")
    print(f"from     {message['carrier']}, lane {message['lane']}, {message['size']} bytes")
    print(f"since    {local_time(message['received_at'])}")
    print(f"reason   {message['reason']}")
    print(f"body     {message['body'] if message['encoding'] == 'text' else message['body'] + ' (base64)'}")
