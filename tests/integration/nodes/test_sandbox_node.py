"""sandbox.exec and zypi.exec: files in, files out, limits and network by config."""

from __future__ import annotations

from typing import Any

import pytest
from process_flows import run_node

from schemas.outcome import ErrorKind
from workers.sandboxes.box.box import NamespaceBox
from workers.sandboxes.box.egress import PUBLIC_EGRESS

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_files_go_in_and_come_out_as_text_or_as_base64(place: NamespaceBox) -> None:
    config = {
        "command": "tr a-z A-Z <in/a.txt >up.txt; cp raw copy",
        "files": {"in/a.txt": "text", "raw": {"base64": "AP8="}},
        "collect": ["up.txt", "copy", "nowhere"],
    }
    result = (await run_node(place, "sandbox.exec", config)).result
    assert result["files"] == {"up.txt": "TEXT", "copy": {"base64": "AP8="}}
    assert result["missing"] == {"nowhere": "No such file or directory"}
    assert result["exit_code"] == 0


async def test_files_may_come_by_port(place: NamespaceBox) -> None:
    ran = await run_node(place, "sandbox.exec", {"command": ["cat", "a.json"]}, {"files": {"a.json": {"n": 1}}})
    assert ran.result["output"] == {"n": 1}


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/../../b", "a\nb", "a\0b", "."])
@pytest.mark.parametrize("key", ["files", "collect"])
async def test_a_file_that_is_not_below_the_work_folder_is_the_flows_mistake(
    place: NamespaceBox, key: str, name: str
) -> None:
    given: dict[str, Any] = {"files": {name: "x"}} if key == "files" else {"collect": [name]}
    error = (await run_node(place, "sandbox.exec", {"command": "true", **given})).error
    assert error.kind is ErrorKind.INVALID_INPUT
    assert "relative path" in error.message


@pytest.mark.parametrize(("network", "names"), [("none", set()), ("app", {"HTTP_PROXY", "HTTPS_PROXY"})])
async def test_a_command_has_a_way_out_only_if_it_asks(place: NamespaceBox, network: str, names: set[str]) -> None:
    config = {"command": "env | grep -o 'HTTPS\\?_PROXY' | sort; true", "network": network}
    ran = await run_node(place, "sandbox.exec", config, egress=PUBLIC_EGRESS)
    assert set(ran.result["stdout"].split()) == names


async def test_limits_are_the_configs(place: NamespaceBox) -> None:
    error = (await run_node(place, "sandbox.exec", {"command": "tail /dev/zero", "memory_mb": 32})).error
    assert error.kind is ErrorKind.MEMORY_EXCEEDED
    assert error.message == "used more memory than its limit of 32 MB; use less or raise memory_mb"


async def test_zypi_takes_flowengines_config_and_inputs(place: NamespaceBox) -> None:
    config = {
        "command": {"type": "String", "value": "sh run.sh"}, "image": {"type": "String", "value": "ubuntu:24.04"},
        "timeout": {"type": "Number", "value": 30},
    }  # fmt: skip
    payload = {"greeting": "hi", "times": 2, "file:run.sh": "echo $GREETING $TIMES; cat data; exit 4",
               "files": {"data": "in it"}, "session_id": "s1"}  # fmt: skip
    result = (await run_node(place, "zypi.exec", config, payload)).result
    assert result.pop("duration_ms") > 0
    assert result == {
        "output": "hi 2\nin it", "stdout": "hi 2\nin it", "stderr": "", "exit_code": 4, "success": False,
        "session_id": "s1",
    }  # fmt: skip
