"""shell.exec: FlowEngine's config and ports, over a real box."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from process_flows import run_document, run_node

from schemas.outcome import ErrorKind
from workers.nodes.boxed import MOST_LINES
from workers.sandboxes.box.box import NamespaceBox

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = Path(__file__).parents[2] / "data" / "flowengine"


async def test_a_command_gives_flowengines_ports(place: NamespaceBox) -> None:
    ran = await run_node(place, "shell.exec", {"command": "echo '{\"n\": 1}'; echo careful >&2"})
    assert ran.result == {
        "output": {"n": 1}, "stdout": '{"n": 1}', "stderr": "careful", "exit_code": 0, "success": True,
    }  # fmt: skip


async def test_lines_are_log_events_of_their_stream(place: NamespaceBox) -> None:
    ran = await run_node(place, "shell.exec", {"command": "echo out; echo err >&2"})
    assert sorted(ran.logged) == [("info", "out"), ("warning", "err")]


async def test_a_flood_of_lines_does_not_become_a_flood_of_events(place: NamespaceBox) -> None:
    ran = await run_node(place, "shell.exec", {"command": f"seq {MOST_LINES + 50}"})
    assert len(ran.logged) == MOST_LINES + 1
    assert ran.logged[-1][0] == "warning"
    assert ran.result["stdout"].endswith(f"\n{MOST_LINES + 50}")


@pytest.mark.parametrize(
    ("config", "stdout"),
    [
        ({"command": "echo $0"}, "/bin/sh"),
        ({"command": ["echo", "a  b", "$HOME"]}, "a  b $HOME"),
        ({"command": "echo", "args": ["a  b"]}, "a  b"),
        ({"command": "echo", "args": "a  b"}, "a b"),
        ({"command": "echo $0", "shell": "/bin/bash"}, "/bin/bash"),
        ({"command": "echo", "args": ["a  b; id"], "shell": True}, "a  b; id"),
        ({"command": "echo 'a  b'", "shell": False}, "a  b"),
        ({"command": "echo $GIVEN $N", "env": {"GIVEN": "yes", "N": 1}}, "yes 1"),
        ({"command": "pwd", "cwd": "deep/er"}, "/work/deep/er"),
        ({"command": "pwd", "workdir": "/tmp"}, "/tmp"),
        ({"command": "printf 'a\\n\\n'"}, "a\n"),
        ({"command": "echo a", "strip_trailing_newline": False}, "a\n"),
        ({"command": "echo a", "capture_stdout": False}, ""),
        ({"command": "cat", "stdin": "given"}, "given"),
        ({"command": "cat"}, ""),
    ],
)
async def test_config_says_what_runs(place: NamespaceBox, config: dict[str, Any], stdout: str) -> None:
    assert (await run_node(place, "shell.exec", config)).result["stdout"] == stdout


@pytest.mark.parametrize(
    ("payload", "read"), [({"stdin": "text"}, "text"), ({"stdin": {"a": 1}}, '{"a":1}'), ({"input": "x"}, '"x"')]
)
async def test_stdin_comes_by_port(place: NamespaceBox, payload: dict[str, Any], read: str) -> None:
    assert (await run_node(place, "shell.exec", {"command": "cat"}, payload)).result["stdout"] == read


async def test_an_exit_code_other_than_zero_fails_the_node_with_its_last_words(place: NamespaceBox) -> None:
    error = (await run_node(place, "shell.exec", {"command": "echo so far; echo why >&2; exit 3"})).error
    assert error.kind is ErrorKind.USER
    assert error.message == "the command exited with code 3: why; set fail_on_error: false to go on all the same"
    assert error.details == {"exit_code": 3, "stdout": "so far\n", "stderr": "why\n"}


async def test_an_exit_code_may_be_a_value_like_any_other(place: NamespaceBox) -> None:
    ran = await run_node(place, "shell.exec", {"command": "exit 3", "fail_on_error": False})
    assert (ran.result["exit_code"], ran.result["success"]) == (3, False)


@pytest.mark.parametrize(
    ("config", "kind", "raise_with"),
    [
        ({"command": "sleep 60", "timeout_ms": 200}, ErrorKind.TIMED_OUT, "timeout_ms"),
        ({"command": "sleep 60", "timeout": 0.2}, ErrorKind.TIMED_OUT, "timeout"),
        ({"command": "yes", "max_output_bytes": 5000}, ErrorKind.OUTPUT_EXCEEDED, "max_output_bytes"),
        ({"command": "while :; do :; done", "cpu_seconds": 0.5}, ErrorKind.TIMED_OUT, "cpu_seconds"),
        ({"command": "exec dd if=/dev/zero of=big bs=1M count=9", "file_size_mb": 1}, ErrorKind.OUTPUT_EXCEEDED,
         "file_size_mb"),
        ({"command": "for i in 1 2 3 4 5 6 7 8 9; do sleep 60 & done; wait", "pids": 4}, ErrorKind.USER, "pids"),
    ],
)  # fmt: skip
async def test_a_limit_is_told_with_the_key_that_raises_it(
    place: NamespaceBox, config: dict[str, Any], kind: ErrorKind, raise_with: str
) -> None:
    error = (await run_node(place, "shell.exec", config)).error
    assert error.kind is kind
    assert error.details is not None
    assert error.details["raise_with"] == raise_with
    assert f"raise {raise_with}" in error.message


@pytest.mark.parametrize(
    ("name", "message"), [("streaming_demo", "5"), ("retry_backoff_demo", "Attempt 3\nSuccess on attempt 3!")]
)
async def test_flowengines_examples_run_as_they_are(place: NamespaceBox, name: str, message: str) -> None:
    raw = json.loads((EXAMPLES / f"{name}.json").read_text())
    assert (await run_document(raw, place)).result == {"message": message}


@pytest.mark.parametrize(
    "leaves",
    [
        "head -c 2000000 /dev/zero >/tmp/left",
        "ln -s /etc/passwd /tmp/left",
        "for i in $(seq 80); do : >/tmp/left$i; done",
        "mkdir /tmp/d && cd /tmp/d && for i in $(seq 1500); do mkdir d && cd -P d; done",
    ],
)
async def test_what_is_no_small_file_in_tmp_is_not_there_at_the_next_try(place: NamespaceBox, leaves: str) -> None:
    raw = {
        "name": "twice",
        "nodes": [
            {
                "id": "it",
                "node_type": "shell.exec",
                "config": {"command": f"ls /tmp >&2; {leaves}; exit 1", "max_output_bytes": 3_000_000},
                "retry_policy": {"max_attempts": 2, "delay_ms": 1},
            }
        ],
    }
    ran = await run_document(raw, place)
    assert ran.error.details == {"exit_code": 1}
