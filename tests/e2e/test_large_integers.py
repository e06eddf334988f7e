"""An integer beyond 64 bits, from the command line through a real stack and back."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.flo_program import flo, flo_dev

LARGE = 12345678901234567890123
CODE = {
    "exact": {"node_type": "code.python", "config": {"code": "def main(n):\n    return n + 1"}},
    "rounded": {"node_type": "code.javascript", "config": {"code": "export default ({n}) => n"}},
}


def test_it_stays_exact_except_in_javascript(tmp_path: Path) -> None:
    file = tmp_path / "large.json"
    file.write_text(json.dumps({"name": "large", "nodes": [{"id": name, **node} for name, node in CODE.items()]}))
    given = json.dumps({"n": LARGE})

    with flo_dev(tmp_path / "home") as dev:
        assert dev.endpoint
        flo("push", str(file), home=dev.home)
        invoked = json.loads(flo("invoke", "--flow", "large", "--input", given, "--json", home=dev.home).out)
        shown = json.loads(flo("runs", "show", invoked["run_id"], "--json", home=dev.home).out)
    here = json.loads(flo("run", str(file), "--input", given, "--json", home=dev.home).out)

    assert shown["payload"] == {"n": LARGE}
    assert invoked["result"]["exact"] == {"output": LARGE + 1}
    assert invoked["result"]["rounded"] == {"output": float(LARGE)}
    assert invoked["result"] == shown["result"] == here["result"]
