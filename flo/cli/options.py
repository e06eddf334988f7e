"""The options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Url = Annotated[
    str | None,
    typer.Option(envvar="FLO_URL", help="The server; default: the `flo dev` of this home, else http://127.0.0.1:8080"),
]
App = Annotated[
    str | None, typer.Option("--app", "-a", envvar="FLO_APP", help="The app (tenant) to act for. [default: default]")
]
Key = Annotated[
    str | None, typer.Option(envvar="FLO_API_KEY", help="The API key; default: the one in $FLO_HOME/api_key")
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
FlowFile = Annotated[str, typer.Argument(metavar="FILE", help="A flow document in JSON; - reads it from stdin.")]
Input = Annotated[
    str, typer.Option("--input", "-i", metavar="JSON", help="The payload: JSON text, or @FILE, or @- for stdin.")
]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many to list.")]
