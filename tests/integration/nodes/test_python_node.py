"""code.python: a user's main, its ports, its log, its own mistakes."""

from __future__ import annotations

from typing import Any

import pytest
from process_flows import run_document, run_node

from schemas.json import JSONValue
from schemas.outcome import ErrorKind
from workers.sandboxes.box.box import NamespaceBox

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("code", "payload", "result"),
    [
        ("def main(name): return f'hello {name}'", {"name": "bo"}, {"output": "hello bo"}),
        ("async def main(n): return {'sum': n + 1}", {"n": 1}, {"output": {"sum": 2}, "sum": 2}),
        ("def main(**inputs): return sorted(inputs)", {"b": 1, "a": 2}, {"output": ["a", "b", "payload"]}),
        ("def main(): return None", {"ignored": 1}, {"output": None}),
        ("def main(*, payload): return payload", [1, 2], {"output": [1, 2]}),
        ("import functools\nmain = functools.partial(lambda a, b: [a, b], 1)", {"b": 2}, {"output": [1, 2]}),
        ("import functools\ndef log(f):\n    @functools.wraps(f)\n    def wrapped(*a, **k): return f(*a, **k)\n"
         "    return wrapped\n@log\ndef main(n): return n", {"n": 1}, {"output": 1}),
        ("main = dict", {"a": 1}, {"output": {"a": 1, "payload": {"a": 1}}, "a": 1, "payload": {"a": 1}}),
    ],
)  # fmt: skip
async def test_main_gets_the_inputs_that_it_names_and_its_result_is_the_ports(
    place: NamespaceBox, code: str, payload: JSONValue, result: Any
) -> None:
    assert (await run_node(place, "code.python", {"code": code}, payload)).result == result


async def test_its_ports_feed_other_nodes(place: NamespaceBox) -> None:
    raw = {
        "name": "two",
        "nodes": [
            {"id": "make", "node_type": "code.python", "config": {"code": "def main(): return {'n': 20}"}},
            {"id": "add", "node_type": "code.python", "config": {"code": "def main(n): return n + 1"}},
        ],
        "connections": [{"from_node": "make", "from_port": "n", "to_node": "add", "to_port": "n"}],
    }
    assert (await run_document(raw, place)).result == {"output": 21}


async def test_what_it_prints_is_the_log(place: NamespaceBox) -> None:
    code = "import sys\ndef main():\n    print('seen')\n    print('careful', file=sys.stderr)"
    ran = await run_node(place, "code.python", {"code": code})
    assert sorted(ran.logged) == [("info", "seen"), ("warning", "careful")]


async def test_an_exception_is_told_with_the_users_own_lines_and_stack(place: NamespaceBox) -> None:
    error = (await run_node(place, "code.python", {"code": "def main():\n    deep()\ndef deep():\n    1 / 0\n"})).error
    assert error.kind is ErrorKind.USER
    assert error.message == "it.py:4: ZeroDivisionError: division by zero"
    assert error.node_id == "it"
    assert error.details is not None
    places = [line.strip() for line in str(error.details["stack"]).splitlines() if "File" in line]
    assert places == ['File "it.py", line 2, in main', 'File "it.py", line 4, in deep']


async def test_a_syntax_error_names_its_line(place: NamespaceBox) -> None:
    error = (await run_node(place, "code.python", {"code": "def main():\n  return )"})).error
    assert (error.kind, error.message) == (ErrorKind.SYNTAX, "it.py:2:10: unmatched ')'")


@pytest.mark.parametrize(
    ("code", "limits", "kind", "raise_with"),
    [
        ("def main():\n    while True: pass", {"timeout_ms": 300}, ErrorKind.TIMED_OUT, "timeout_ms"),
        ("def main(): return len('x' * 10**9)", {"memory_mb": 32}, ErrorKind.MEMORY_EXCEEDED, "memory_mb"),
        ("def main(): return 'x' * 10**4", {"max_output_bytes": 5000}, ErrorKind.OUTPUT_EXCEEDED, "max_output_bytes"),
        ("def main():\n    while True: print('x' * 99)", {"max_output_bytes": 5000}, ErrorKind.OUTPUT_EXCEEDED,
         "max_output_bytes"),
        ("import os\ndef main():\n    for _ in range(9): os.fork() or __import__('time').sleep(60)", {"pids": 3},
         ErrorKind.USER, "pids"),
        ("import threading, time\ndef main():\n    for _ in range(9):\n"
         "        threading.Thread(target=time.sleep, args=(9,)).start()", {"pids": 3}, ErrorKind.USER, "pids"),
    ],
)  # fmt: skip
async def test_a_limit_is_told_with_the_key_that_raises_it(
    place: NamespaceBox, code: str, limits: dict[str, Any], kind: ErrorKind, raise_with: str
) -> None:
    error = (await run_node(place, "code.python", {"code": code, **limits})).error
    assert error.kind is kind
    assert error.details is not None
    assert error.details["raise_with"] == raise_with
    assert f"raise {raise_with}" in error.message
