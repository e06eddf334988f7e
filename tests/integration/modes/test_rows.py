"""Each execution mode does what its row of the table says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from in_mode import SANDBOXED, InMode, opened

from schemas.app import AppLimits
from schemas.outcome import ErrorKind
from schemas.settings import ExecutionMode
from workers.sandboxes.box.open import WAYS

_PROCESS_MODES = [mode for mode in ExecutionMode if mode is not ExecutionMode.SANDBOX_CODE_ONLY]
_IN_NODE = [ExecutionMode.UNSANDBOXED, ExecutionMode.SANDBOX_PROCESS]
_IN_ISOLATES = [ExecutionMode.SANDBOX_CODE_ONLY, ExecutionMode.SANDBOX_CODE_AND_PROCESS]

_WHAT_IS_THERE = "export default () => ({node: typeof process !== 'undefined'})"


async def test_javascript_and_typescript_run_in_every_mode(any_mode: InMode) -> None:
    assert await any_mode.javascript("export default () => ({one: 1})") == {"one": 1, "output": {"one": 1}}
    typed = {"code": "export default ({n}: {n: number}) => ({twice: n * 2})"}
    assert (await any_mode.result("code.typescript", typed, payload={"n": 21}))["twice"] == 42


@pytest.mark.parametrize("mode", _PROCESS_MODES)
async def test_python_and_commands_run_where_there_is_a_place_for_them(mode: ExecutionMode, tmp_path: Path) -> None:
    async with opened(mode, tmp_path) as worker:
        python = {"code": "def main(n):\n    return {'twice': n * 2}"}
        assert (await worker.result("code.python", python, payload={"n": 21}))["twice"] == 42
        assert (await worker.result("shell.exec", {"command": "echo $((6*7))"}))["stdout"].strip() == "42"


@pytest.mark.parametrize("node_type", ["code.python", "shell.exec", "sandbox.exec"])
async def test_code_only_refuses_processes_at_the_start_and_names_the_modes(node_type: str, tmp_path: Path) -> None:
    config = {"code": "def main(): ..."} if node_type == "code.python" else {"command": "true"}
    async with opened(ExecutionMode.SANDBOX_CODE_ONLY, tmp_path) as worker:
        error = await worker.error(node_type, config)

    assert error.kind is ErrorKind.FORBIDDEN
    assert error.message == (
        f"{node_type} is not allowed in execution mode SANDBOX_CODE_ONLY; it runs with "
        "FLO_EXECUTION_MODE=SANDBOX_CODE_AND_PROCESS or SANDBOX_PROCESS or UNSANDBOXED"
    )


async def test_a_process_node_inside_another_node_is_refused_too(tmp_path: Path) -> None:
    inner = {"name": "inner", "nodes": [{"id": "x", "node_type": "shell.exec", "config": {"command": "true"}}]}
    flow = {"nodes": inner["nodes"], "connections": []}
    async with opened(ExecutionMode.SANDBOX_CODE_ONLY, tmp_path) as worker:
        error = await worker.error("flow.map", {"flow": flow}, payload={"items": [1]})

    assert error.kind is ErrorKind.FORBIDDEN
    assert "shell.exec is not allowed in execution mode SANDBOX_CODE_ONLY" in error.message


@pytest.mark.parametrize("mode", _IN_NODE)
async def test_code_has_node_where_the_wall_is_elsewhere(mode: ExecutionMode, tmp_path: Path) -> None:
    async with opened(mode, tmp_path) as worker:
        assert (await worker.javascript(_WHAT_IS_THERE))["node"] is True


@pytest.mark.parametrize("mode", _IN_ISOLATES)
async def test_code_has_an_isolate_where_others_share_the_wall(mode: ExecutionMode, tmp_path: Path) -> None:
    async with opened(mode, tmp_path) as worker:
        assert (await worker.javascript(_WHAT_IS_THERE))["node"] is False


@pytest.mark.parametrize("mode", [ExecutionMode.SANDBOX_PROCESS, ExecutionMode.SANDBOX_CODE_AND_PROCESS])
async def test_what_runs_in_a_box_sees_nothing_of_the_host(mode: ExecutionMode, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret")
    look = f"cat {tmp_path}/secret; cat /etc/shadow; env; hostname; ls /home /root"
    async with opened(mode, tmp_path) as worker:
        said = await worker.result("shell.exec", {"command": look, "fail_on_error": False})

    assert "s3cret" not in said["stdout"]
    assert os.uname().nodename not in said["stdout"].splitlines()
    assert "root:" not in said["stdout"]


async def test_a_run_may_ask_for_a_stronger_mode(tmp_path: Path) -> None:
    wish = {"execution_mode": "SANDBOX_CODE_AND_PROCESS"}
    async with opened(ExecutionMode.SANDBOX_CODE_ONLY, tmp_path) as worker:
        said = await worker.result("shell.exec", {"command": "echo here"}, backend_config=wish)

    assert said["stdout"].strip() == "here"


async def test_a_run_may_not_ask_for_a_weaker_mode(per_app: InMode) -> None:
    wish = {"execution_mode": "UNSANDBOXED"}

    error = await per_app.error("shell.exec", {"command": "id"}, backend_config=wish)

    assert error.kind is ErrorKind.FORBIDDEN
    assert "the operator allows nothing weaker than SANDBOX_CODE_AND_PROCESS" in error.message


async def test_the_operator_may_allow_a_weaker_mode(tmp_path: Path) -> None:
    wish = {"execution_mode": "SANDBOX_CODE_ONLY"}
    async with opened(ExecutionMode.SANDBOX_CODE_AND_PROCESS, tmp_path, FLO_WEAKEST_MODE="SANDBOX_CODE_ONLY") as worker:
        error = await worker.error("shell.exec", {"command": "id"}, backend_config=wish)

    assert "not allowed in execution mode SANDBOX_CODE_ONLY" in error.message


async def test_an_app_has_a_mode_of_its_own(tmp_path: Path) -> None:
    async with opened(ExecutionMode.SANDBOX_CODE_ONLY, tmp_path) as worker:
        worker.limits["acme"] = AppLimits(execution_mode=ExecutionMode.SANDBOX_CODE_AND_PROCESS)
        said = await worker.result("shell.exec", {"command": "echo here"})
        error = await worker.error("shell.exec", {"command": "echo here"}, app="other")

    assert said["stdout"].strip() == "here"
    assert error.kind is ErrorKind.FORBIDDEN


async def test_a_mode_that_is_none_is_named(per_app: InMode) -> None:
    error = await per_app.error("debug.log", {"message": "m"}, backend_config={"execution_mode": "STRONG"})

    assert error.message.startswith("backend_config.execution_mode is 'STRONG'; allowed: UNSANDBOXED")


@pytest.mark.parametrize("mode", SANDBOXED)
async def test_outcomes_are_told_apart(mode: ExecutionMode, tmp_path: Path) -> None:
    async with opened(mode, tmp_path) as worker:
        thrown = await worker.error("code.javascript", {"code": "export default () => {\n  throw Error('mine');\n}"})
        late = await worker.error("code.javascript", {"code": "export default () => {for(;;);}", "timeout_ms": 300})
        big = await worker.error(
            "code.javascript", {"code": "export default () => 'x'.repeat(5000)", "max_output_bytes": 1000}
        )
        heavy = await worker.error(
            "code.javascript",
            {
                "code": "export default () => {const a = []; for (;;) a.push(Array(1000).fill({}));}",
                "memory_mb": 32,
            },
        )
        after = await worker.result("code.javascript", {"code": "export default () => 'well'"})

    assert [thrown.kind, late.kind, big.kind, heavy.kind] == [
        ErrorKind.USER, ErrorKind.TIMED_OUT, ErrorKind.OUTPUT_EXCEEDED, ErrorKind.MEMORY_EXCEEDED,
    ]  # fmt: skip
    assert "it.js:2" in thrown.message
    assert [error.details and error.details["raise_with"] for error in (late, big, heavy)] == [
        "timeout_ms", "max_output_bytes", "memory_mb",
    ]  # fmt: skip
    assert after["output"] == "well" or after == "well"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", [ExecutionMode.SANDBOX_PROCESS, ExecutionMode.SANDBOX_CODE_AND_PROCESS])
async def test_every_way_into_a_box_serves_both_modes(
    mode: ExecutionMode, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.sandboxes.box.open.WAYS", (way,))
    async with opened(mode, tmp_path) as worker:
        code = await worker.javascript("export default () => ({js: 1})")
        python = await worker.result("code.python", {"code": "def main():\n    return {'py': 2}"})
        shell = await worker.result("shell.exec", {"command": "id -u"})

    assert (code["js"], python["py"], shell["stdout"].strip()) == (1, 2, "1000")
