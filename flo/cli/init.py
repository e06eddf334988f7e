"""`flo init`: a small flow to start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flo.errors import Mistake
from flo.wire import JSONValue

_GREET = """\
export default ({ name = "world" }) => {
  console.log(`greeting ${name}`);
  return { text: `hello ${name}` };
};
"""


def hello(name: str) -> JSONValue:
    """Make a flow that greets and logs its greeting."""
    return {
        "name": name,
        "nodes": [
            {"id": "greet", "node_type": "code.javascript", "config": {"code": _GREET, "timeout_ms": 1000}},
            {"id": "say", "node_type": "debug.log", "config": {}},
        ],
        "connections": [{"from_node": "greet", "from_port": "text", "to_node": "say", "to_port": "message"}],
        "settings": {"max_execution_time_ms": 60_000},
    }


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")] = Path("hello.json"),
    *,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a small flow to start from."""
    text = json.dumps(hello(file.stem), indent=2) + "\n"
    try:
        with file.open("w" if force else "x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise Mistake(f"{file} is there already: name another file, or write over it with --force") from None
    except OSError as refusal:
        raise Mistake(f"{file} can't be written ({refusal.strerror}): name another file") from None
    print(f'wrote {file}; try:  flo run {file} -i \'{{"name": "Ada"}}\'')
