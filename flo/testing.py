"""Run flows in tests as `flo run` does: in a process of its own, without a server.

    from flo.testing import run_flow

    def test_my_flow_greets():
        assert run_flow("hello.json", {"name": "bo"})["result"] == {"message": "hello bo"}

Authors of node types find their contract suite in `workers.testing`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from flo.wire import JSONValue


class WrongDocument(ValueError):
    """The flow has mistakes; each stands in the message with its path and its fix."""


def run_flow(flow: dict[str, Any] | str | Path, payload: JSONValue = None, *, timeout: float = 60) -> dict[str, Any]:
    """Run a flow, a document or the path of one, and give the run: status, result, error, nodes and so on.

    Raises WrongDocument for a flow that would not be accepted, and TimeoutExpired after `timeout` seconds.
    """
    text = json.dumps(flow) if isinstance(flow, dict) else Path(flow).read_text()
    given = json.dumps({} if payload is None else payload)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "workers.runner", "run", "-", "--json", "--input", given],
        input=text, capture_output=True, text=True, check=False, timeout=timeout,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    if not lines:
        raise WrongDocument(done.stderr.strip() or f"the runner ended with exit code {done.returncode}")
    said: dict[str, Any] = json.loads(lines[-1])
    if said.get("ok") is False:
        raise WrongDocument("\n".join(f"{p['path']}: {p['message']} ({p['fix']})" for p in said["problems"]))
    return said
