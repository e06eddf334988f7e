"""A flow file whose nodes run alone, without a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

EXAMPLE = str(Path(__file__).parents[3] / "examples" / "crunch_alone.json")
#: Where no Docker daemon listens.
_NOWHERE = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}


def run(*arguments: str, stdin: object = None, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "workers.runner", "run", *arguments, "--json"],
        input=json.dumps(stdin), capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, **_NOWHERE, **variables},
    )  # fmt: skip


def alone(node_id: str) -> dict[str, Any]:
    return {"id": node_id, "node_type": "debug.log", "config": {"message": node_id}, "execution_mode": "sandbox"}


def test_a_box_is_given_where_docker_does_not_answer() -> None:
    done = run(EXAMPLE, "-i", '{"n": 10}')

    shown = json.loads(done.stdout)
    assert (done.returncode, shown["result"]) == (0, 55), done.stderr
    assert done.stderr == ""


def test_a_process_is_given_with_one_warning_however_many_nodes_there_are() -> None:
    flow = {"name": "three", "nodes": [alone("a"), alone("b"), alone("c")]}

    done = run("-", stdin=flow, FLO_SOLO="process")

    assert json.loads(done.stdout)["status"] == "succeeded", done.stderr
    assert done.stderr.count("solo.in_processes") == 1


def test_a_container_that_is_asked_for_and_not_to_be_had_is_an_error_with_its_fix() -> None:
    done = run("-", stdin={"name": "one", "nodes": [alone("a")]}, FLO_SOLO="docker")

    shown = json.loads(done.stdout)
    assert done.returncode == 1
    assert shown["error"]["node_id"] == "a"
    assert "does not answer" in shown["error"]["message"]
    assert "DOCKER_HOST" in shown["error"]["message"]


def test_the_places_bound_the_nodes_of_a_file_too() -> None:
    flow = {"name": "three", "nodes": [alone("a"), alone("b"), alone("c")]}

    done = subprocess.run(
        [sys.executable, "-P", "-m", "workers.runner", "run", "-", "--events"],
        input=json.dumps(flow), capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, **_NOWHERE, "FLO_MAX_SOLO_NODES": "1"},
    )  # fmt: skip

    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("message", "").startswith("waits for a place: 1 node") for line in said].count(True) == 2
    assert said[-1]["status"] == "succeeded"
