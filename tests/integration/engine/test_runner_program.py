"""The runner as a program: what it prints and how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workers.sandboxes.v8.setup import check_isolated_vm

EXAMPLES = Path(__file__).parents[3] / "examples"
LOG_ONLY = {"name": "log", "nodes": [{"id": "say", "node_type": "debug.log", "config": {}}]}
FAILING = {"name": "bad", "nodes": [{"id": "parse", "node_type": "transform.json_parse", "config": {"json": "{"}}]}


def runner(*arguments: str, stdin: object = None) -> subprocess.CompletedProcess[str]:
    text = stdin if isinstance(stdin, str) else json.dumps(stdin)
    return subprocess.run(
        [sys.executable, "-P", "-m", "workers.runner", *arguments],
        input=text, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_run_prints_its_events_and_at_last_itself() -> None:
    done = runner("run", "-", "--input", '{"message": "hi"}', "--events", stdin=LOG_ONLY)

    *events, run = lines(done)
    assert done.returncode == 0
    assert [(event["seq"], event["type"]) for event in events] == [
        (1, "run_started"), (2, "node_started"), (3, "log"), (4, "node_completed"), (5, "run_completed"),
    ]  # fmt: skip
    assert (run["status"], run["result"], run["payload"]) == ("succeeded", {"message": "hi"}, {"message": "hi"})
    assert run["nodes"][0]["outputs"] == {"message": "hi"}


def test_a_run_with_code_starts_v8_and_leaves_nothing_running() -> None:
    check_isolated_vm()

    done = runner("run", str(EXAMPLES / "hello.json"), "--json")

    (run,) = lines(done)
    assert (done.returncode, run["result"]) == (0, {"message": "hello world"})


def test_a_payload_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "payload.json").write_text('{"message": 3}')

    (run,) = lines(runner("run", "-", "--json", "-i", f"@{tmp_path / 'payload.json'}", stdin=LOG_ONLY))

    assert run["result"] == {"message": 3}


def test_a_failed_run_exits_with_1_and_says_why() -> None:
    done = runner("run", "-", "--json", stdin=FAILING)

    (run,) = lines(done)
    assert (done.returncode, run["status"], run["error"]["node_id"]) == (1, "failed", "parse")


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["run", "no-such.json"], "", "no-such.json can't be read: No such file or directory"),
        (["run", "-", "-i", "{"], LOG_ONLY, "--input is not JSON:"),
        (["validate", "-"], '{"name": "x",\n oops}', "at line 2, column"),
        (["run", "-"], {"name": "x", "nodes": []}, "the flow has no nodes"),
    ],
)
def test_a_users_mistake_exits_with_2_and_one_clear_message(arguments: list[str], stdin: object, message: str) -> None:
    done = runner(*arguments, stdin=stdin)

    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_document_is_listed_for_programs_too() -> None:
    done = runner("validate", "-", "--json", stdin={"name": "x", "nodes": [{"id": "a", "node_type": "debug.lg"}]})

    (answer,) = lines(done)
    assert done.returncode == 2
    assert answer["ok"] is False
    assert answer["problems"][0]["path"] == "nodes[0].node_type"


def test_a_valid_document_is_told_with_its_hash() -> None:
    (answer,) = lines(runner("validate", "-", "--json", stdin=LOG_ONLY))

    assert (answer["ok"], answer["name"], answer["nodes"]) == (True, "log", 1)
    assert len(answer["hash"]) == 64


def test_a_run_whose_reader_is_gone_stops_without_a_word() -> None:
    pause = {"name": "x", "nodes": [{"id": "wait", "node_type": "time.delay", "config": {"delay_ms": 0}}]}
    program = subprocess.Popen(
        [sys.executable, "-P", "-m", "workers.runner", "run", "-", "--events"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdin and program.stdout and program.stderr
    program.stdout.close()

    program.stdin.write(json.dumps(pause))
    program.stdin.close()

    assert program.wait(60) == 1
    assert program.stderr.read() == ""
    program.stderr.close()


def test_the_node_types_are_listed() -> None:
    (types,) = lines(runner("nodes", "--json"))

    assert "code.javascript" in [node_type["type"] for node_type in types]


@pytest.mark.parametrize(
    ("mode", "there"), [("UNSANDBOXED", True), ("SANDBOX_PROCESS", True), ("SANDBOX_CODE_ONLY", False)]
)
def test_a_mode_that_is_named_holds_for_a_file_too(mode: str, there: bool, tmp_path: Path) -> None:
    code = "export default () => ({node: typeof process !== 'undefined'})"
    flow = tmp_path / "flow.json"
    flow.write_text(
        json.dumps({"name": "f", "nodes": [{"id": "a", "node_type": "code.javascript", "config": {"code": code}}]})
    )
    environ = {**os.environ, "FLO_EXECUTION_MODE": mode, "FLO_HOME": str(tmp_path / "home")}

    done = subprocess.run(
        [sys.executable, "-P", "-m", "workers.runner", "run", str(flow), "--json"],
        capture_output=True, text=True, env=environ, timeout=60, check=False,
    )  # fmt: skip

    assert (done.returncode, json.loads(done.stdout)["result"]["node"]) == (0, there), done.stderr
