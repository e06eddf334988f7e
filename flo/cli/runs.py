"""`flo runs`: what ran, and what became of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from flo.cli.options import App, AsJSON, Key, Limit, Url

if TYPE_CHECKING:
    from flo.calls import Call

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, as `flo runs` lists it.")]

runs = typer.Typer(help="What ran, and what became of it.", invoke_without_command=True)


@runs.callback()
def index(
    context: typer.Context,
    *,
    status: Annotated[str | None, typer.Option("--status", help="Only runs in this state, e.g. failed.")] = None,
    lane: Annotated[str | None, typer.Option("--lane", help="Only this lane: recurring, webhook or flow.")] = None,
    limit: Limit = 20,
    url: Url = None,
    app: App = None,
    key: Key = None,
    as_json: AsJSON = False,
) -> None:
    """List the newest runs; without --app, those of every app that the key may see."""
    if context.invoked_subcommand is not None:
        return

    from flo.cli.tables import elapsed, local_time, print_table
    from flo.client import FloClient

    with FloClient(url, app=app, key=key) as client:
        found = client.runs(app=app, status=status, lane=lane, limit=limit)
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return
    print_table(
        ["Run", "App", "Flow", "Lane", "Status", "Attempt", "Created", "Took"],
        [
            [
                run["run_id"],
                run["app"],
                f"{run['flow']} v{run['version']}",
                run["lane"],
                f"{run['status']} (in line)" if "waiting_for" in run else run["status"],
                str(run["attempt"]),
                local_time(run["created_at"]),
                elapsed(run["started_at"], run["finished_at"]),
            ]
            for run in found
        ],
        what="runs",
    )


@runs.command()
def show(run_id: RunId, *, url: Url = None, key: Key = None, as_json: AsJSON = False) -> None:
    """Show one run with its nodes."""
    from flo.cli.tables import elapsed, local_time, print_table
    from flo.client import FloClient

    with FloClient(url, key=key) as client:
        run = client.run(run_id)
    if as_json:
        print(json.dumps(run, ensure_ascii=False, indent=2))
        return
    error = run["error"]
    print(f"run       {run['run_id']}")
    print(f"flow      {run['app']}/{run['flow']} version {run['version']}, by event {run['event']}")
    if "parent_run" in run:
        print(f"part of   {run['parent_run']}" + (f", as its node {run['node']}" if "node" in run else ""))
    print(f"status    {run['status']}, attempt {run['attempt']}, lane {run['lane']}, executor {run['executor']}")
    if "waiting_for" in run:
        print(f"waits for {run['waiting_for']}")
    for wait in run.get("waits", ()):
        until = f" until {local_time(wait['until'])}" if wait["until"] else ""
        print(f"waits for {wait['kind']} at {wait['node_id']}{until}  {wait['url'] or wait.get('run_id', '')}")
    print(f"times     {local_time(run['created_at'])}, took {elapsed(run['started_at'], run['finished_at'])}")
    print(f"payload   {json.dumps(run['payload'], ensure_ascii=False)}")
    print(f"result    {json.dumps(run['result'], ensure_ascii=False)}")
    if error:
        print(f"error     {error['kind']}: {error['message']}")
    print_table(
        ["Node", "Type", "Status", "Attempts", "Took", "Error or outputs"],
        [
            [
                node["id"],
                node["node_type"],
                node["status"],
                str(node["attempts"]),
                elapsed(node["started_at"], node["finished_at"]),
                node["error"]["message"] if node["error"] else json.dumps(node["outputs"], ensure_ascii=False),
            ]
            for node in run["nodes"]
        ],
        what="nodes",
    )


@runs.command()
def cancel(run_id: RunId, *, url: Url = None, key: Key = None, as_json: AsJSON = False) -> None:
    """Ask a run to stop."""
    from flo import calls

    _act(calls.on_run(run_id, "cancel"), url=url, key=key, as_json=as_json)


@runs.command()
def retry(
    run_id: RunId,
    *,
    from_node: Annotated[
        str | None, typer.Option("--from", metavar="NODE", help="Begin here; take over what other nodes gave.")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJSON = False,
) -> None:
    """Run a finished run again: all of it, or from a node on."""
    from flo import calls

    _act(calls.retry(run_id, from_node=from_node), url=url, key=key, as_json=as_json)


def _act(call: Call, *, url: str | None, key: str | None, as_json: bool) -> None:
    from flo.client import FloClient

    with FloClient(url, key=key) as client:
        answer = client.send(call)
    print(json.dumps(answer, ensure_ascii=False, indent=2) if as_json else f"{answer['run_id']} {answer['status']}")
