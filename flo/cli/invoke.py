"""`flo invoke`: runs a flow on a running server."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from flo.cli.inputs import read_payload
from flo.cli.options import App, AsJSON, Input, Key, Url
from flo.errors import Answered, Mistake, RunFailed

if TYPE_CHECKING:
    from rich.status import Status

    from flo.calls import InvokeOptions
    from flo.client import FloClient


def invoke(
    event: Annotated[str | None, typer.Argument(help="The event to invoke.")] = None,
    *,
    flow: Annotated[
        str | None, typer.Option("--flow", help="Invoke this flow, by an invoke event of its name (made if need be).")
    ] = None,
    payload: Input = "{}",
    in_background: Annotated[bool, typer.Option("--async", help="Only queue it, and print the run's id.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show each node as it happens.")] = False,
    mode: Annotated[str | None, typer.Option("--mode", help="Where it runs, if not where the server would.")] = None,
    url: Url = None,
    app: App = None,
    key: Key = None,
    as_json: AsJSON = False,
) -> None:
    """Run a flow on the server: wait for its result, follow it live, or only queue it."""
    if (event is None) == (flow is None):
        raise Mistake("name what to run: either `flo invoke EVENT` or `flo invoke --flow FLOW`")
    value = read_payload(payload)
    options: InvokeOptions = {} if mode is None else {"mode": mode}

    from flo.cli.following import follow_run
    from flo.client import FloClient

    with FloClient(url, app=app, key=key) as client:
        name = event or _event_of(client, flow or "")
        if in_background:
            accepted = client.invoke_async(name, value, **options)
            print(json.dumps(accepted) if as_json else accepted["run_id"])
            if follow:
                follow_run(client, client.follow(accepted["run_id"]), as_json=as_json)
        elif follow:
            follow_run(client, client.stream(name, value, **options), as_json=as_json)
        else:
            with _busy(f"running {name}"):
                answer = client.invoke(name, value, **options)
            run = client.run(answer["run_id"])
            print(json.dumps(run if as_json else run["result"], ensure_ascii=False, indent=2))
            if run["status"] != "succeeded":
                raise RunFailed(run)


def _event_of(client: FloClient, flow: str) -> str:
    """Find the flow's invoke event, which has the flow's name; make it where there is none."""
    from flo import calls

    try:
        found = client.send(calls.event(client.app, flow))
    except Answered as refusal:
        if refusal.status != 404:
            raise
        client.put_event(flow, kind="invoke", flow=flow)
        return flow
    if found["flow"] != flow:
        raise Mistake(f'the event "{flow}" starts another flow, "{found["flow"]}": make an event of another name')
    return flow


def _busy(text: str) -> Status | nullcontext[None]:
    """Show that something is going on, if anyone is watching."""
    from rich.console import Console

    return Console(stderr=True).status(text) if sys.stderr.isatty() else nullcontext()
