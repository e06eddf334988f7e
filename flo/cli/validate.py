"""`flo validate`: every mistake of a flow file, without a server."""

from __future__ import annotations

import json

import typer

from flo.cli import runner
from flo.cli.options import AsJSON, FlowFile
from flo.errors import Mistake


def validate(file: FlowFile, *, as_json: AsJSON = False) -> None:
    """Check a flow file; list every mistake, each with its place and its fix."""
    try:
        checked = runner.answer("validate", file, "--json")
    except runner.WrongFlow as mistakes:
        if not as_json:
            raise
        print(json.dumps({"ok": False, "problems": mistakes.problems}, ensure_ascii=False, indent=2))
        raise typer.Exit(Mistake.exit_code) from None
    if as_json:
        print(json.dumps(checked, ensure_ascii=False, indent=2))
        return
    for note in checked["problems"]:
        print(f"note: {note['path']}: {note['message']}" + (f" ({note['fix']})" if note["fix"] else ""))
    print(f'{file}: the flow "{checked["name"]}" is valid ({checked["nodes"]} nodes)')
