"""`flo hub` as an operator types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "hub_example"
SLUG = "hub.flo-example-slug@1.0.0"


def flo(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "FLO_HOME": str(home)}
    command = [sys.executable, "-m", "flo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environ, check=False)


def test_the_command_line_installs_lists_runs_and_removes(home: Path, tmp_path: Path) -> None:
    document = tmp_path / "flow.json"
    document.write_text(json.dumps({"name": "f", "nodes": [{"id": "a", "node_type": SLUG, "config": {}}]}))

    installed = flo(home, "hub", "install", str(EXAMPLE), "--json")
    listed = flo(home, "hub", "list", "--json")
    ran = flo(home, "run", str(document), "-i", '{"text": "a b"}', "--json")
    removed = flo(home, "hub", "remove", "flo-example-slug@1.0.0", "--json")
    again = flo(home, "hub", "remove", "flo-example-slug@1.0.0")

    assert json.loads(installed.stdout)["type"] == SLUG
    assert [each["type"] for each in json.loads(listed.stdout)] == [SLUG]
    assert json.loads(ran.stdout)["result"] == {"slug": "a-b", "words": 2}
    assert json.loads(removed.stdout) == {"removed": SLUG}
    assert (again.returncode, again.stderr) == (2, f"Error: {SLUG} is not installed; installed: none\n")
