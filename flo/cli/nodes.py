"""`flo nodes`: the node types that flows can be made of."""

from __future__ import annotations

import json

from flo.cli import runner
from flo.cli.options import AsJSON


def nodes(*, as_json: AsJSON = False) -> None:
    """List the node types."""
    types = runner.answer("nodes", "--json")
    if as_json:
        print(json.dumps(types, ensure_ascii=False, indent=2))
        return

    from flo.cli.tables import print_table

    print_table(
        ["Type", "Category", "What it does"],
        [[t["type"], t["category"], t["description"]] for t in types],
        what="nodes",
    )
