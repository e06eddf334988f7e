"""What a document may ask of the nodes that run commands and Python, and where they are refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from schemas.catalog import load_catalog
from schemas.errors import Invalid
from schemas.nodes.boxed import PROCESS_MODES
from schemas.outcome import ErrorKind
from schemas.settings import ExecutionMode
from schemas.validation import read_document
from workers.sandboxes.box.base import BoxLimits, CommandOrder, PythonOrder, Stopped, ignore_output
from workers.sandboxes.commands import NoBox

TYPES = ("code.python", "sandbox.exec", "shell.exec", "zypi.exec")
LIMITS = BoxLimits(timeout=timedelta(seconds=1))


def read(node_type: str, config: dict[str, Any], mode: ExecutionMode = ExecutionMode.SANDBOX_CODE_AND_PROCESS) -> None:
    raw = {"name": "one", "nodes": [{"id": "it", "node_type": node_type, "config": config}]}
    read_document(raw, catalog=load_catalog(mode), max_inline_http=timedelta(seconds=300))


@pytest.mark.parametrize("node_type", TYPES)
def test_each_is_refused_where_nothing_but_code_may_run_and_the_fix_names_the_modes(node_type: str) -> None:
    with pytest.raises(Invalid) as refused:
        read(node_type, dict(load_catalog()[node_type].example), ExecutionMode.SANDBOX_CODE_ONLY)
    problem = refused.value.problems[0]
    assert problem.message == f'node "it": {node_type} is not allowed in execution mode SANDBOX_CODE_ONLY'
    assert problem.fix == (
        "run the worker with FLO_EXECUTION_MODE=SANDBOX_CODE_AND_PROCESS or SANDBOX_PROCESS or UNSANDBOXED"
    )


@pytest.mark.parametrize("mode", sorted(PROCESS_MODES))
@pytest.mark.parametrize("node_type", TYPES)
def test_each_example_is_allowed_in_every_other_mode(node_type: str, mode: ExecutionMode) -> None:
    read(node_type, dict(load_catalog()[node_type].example), mode)


def test_none_of_them_is_taken_for_repeatable() -> None:
    assert [load_catalog()[node_type].repeatable for node_type in TYPES] == [False] * 4


@pytest.mark.parametrize(
    ("node_type", "config", "says"),
    [
        ("shell.exec", {}, '"command" is missing'),
        ("shell.exec", {"command": ["ls"], "args": ["-l"]}, "list of words already"),
        ("shell.exec", {"command": "a", "cwd": "b", "workdir": "c"}, "cwd and workdir"),
        ("shell.exec", {"command": "say 'hi", "shell": False}, "No closing quotation"),
        ("shell.exec", {"command": "a\0b"}, "NUL"),
        ("shell.exec", {"command": "a", "env": {"A=B": "c"}}, "neither = nor NUL"),
        ("shell.exec", {"command": "a", "env_passthrough": True}, "never sees the worker's environment"),
        ("shell.exec", {"command": "a", "memory_mb": 1}, "16"),
        ("sandbox.exec", {"command": "a", "files": {"x": {"base64": "?"}}}, "base64"),
        ("sandbox.exec", {"command": "a", "network": "host"}, "network"),
        ("code.python", {"code": ""}, "code"),
    ],
)
def test_a_mistake_in_a_config_is_told_at_push(node_type: str, config: dict[str, Any], says: str) -> None:
    with pytest.raises(Invalid) as refused:
        read(node_type, config)
    assert says in str(refused.value)


async def test_a_worker_without_a_place_for_them_says_what_would_take_them() -> None:
    command = await NoBox().run(CommandOrder(argv=("true",), app="app", limits=LIMITS), ignore_output)
    python = await NoBox().run_python(PythonOrder(source="", inputs={}, app="app", limits=LIMITS), ignore_output)
    assert isinstance(command, Stopped)
    assert isinstance(python, Stopped)
    assert command.error.kind is python.error.kind is ErrorKind.FORBIDDEN
    assert "FLO_EXECUTION_MODE=SANDBOX_CODE_AND_PROCESS or SANDBOX_PROCESS or UNSANDBOXED" in command.error.message
