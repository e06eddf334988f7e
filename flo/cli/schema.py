"""`flo schema`: the JSON Schema of flow documents."""

from __future__ import annotations

import json

from flo.cli import runner


def schema() -> None:
    """Print the JSON Schema of flow files, for editors: save it, and name it in a file's "$schema"."""
    print(json.dumps(runner.answer("schema", "--json"), ensure_ascii=False, indent=2))
