"""`flo push`: a version of a flow, to a running server."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from flo.cli.inputs import json_file
from flo.cli.options import App, AsJSON, FlowFile, Key, Url
from flo.errors import Mistake


def push(
    file: FlowFile,
    *,
    name: Annotated[str | None, typer.Option("--name", help="The flow's name; default: the one in the file.")] = None,
    url: Url = None,
    app: App = None,
    key: Key = None,
    as_json: AsJSON = False,
) -> None:
    """Push a flow to the server; the same content again gives the same version."""
    document = json_file(file)
    if not isinstance(document, dict):
        raise Mistake(f"{file} is not a flow document: it must be a JSON object with `name` and `nodes`")
    named = name or document.get("name")
    if not isinstance(named, str) or not named:
        raise Mistake(f"the flow in {file} has no name: give it a `name`, or use --name")

    from flo.client import FloClient

    with FloClient(url, app=app, key=key) as client:
        pushed = client.push(named, document)
    if as_json:
        print(json.dumps(pushed, ensure_ascii=False, indent=2))
        return
    news = "pushed" if pushed.get("created") else "nothing new in"
    print(f"{news} {pushed['app']}/{pushed['flow']} version {pushed['version']}")
