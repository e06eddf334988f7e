"""`flo limits`: what an app is allowed."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from flo.cli.options import AsJSON, Key, Url

_EXAMPLE = '{"max_concurrency": 5}'


def limits(
    app: Annotated[str, typer.Argument(metavar="APP", help="The app (tenant).")],
    *,
    new: Annotated[
        str | None,
        typer.Option("--set", metavar="JSON", help="Replace them: JSON text, or @FILE, or @- for stdin."),
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJSON = False,
) -> None:
    """Show what an app is allowed, or replace it; both need an admin key."""
    from flo import calls
    from flo.cli.inputs import json_file, parse
    from flo.cli.tables import print_table
    from flo.client import FloClient
    from flo.errors import Mistake

    if new is None:
        call = calls.limits(app)
    else:
        given = json_file(new[1:]) if new.startswith("@") else parse(new, what="--set")
        if not isinstance(given, dict):
            # No body at all is an empty one to the server: `null` would lift every limit.
            raise Mistake(f"--set must be a JSON object, such as {_EXAMPLE}; given {json.dumps(given)[:60]}")
        call = calls.put_limits(app, given)
    with FloClient(url, key=key) as client:
        found = client.send(call)
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return
    said = [[name, "the server's default" if value is None else json.dumps(value)] for name, value in found.items()]
    print_table(["Limit", app], said, what="limits")
