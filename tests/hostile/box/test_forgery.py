"""Programs that want to speak in the box's name: results that were never returned, errors that never were."""

# Hostile programs stand on one line each, however long.
# ruff: noqa: E501

from __future__ import annotations

from typing import Any

import pytest

from schemas.outcome import ErrorKind
from tests.integration.box.boxes import ignore_output, python
from workers.sandboxes.box.base import Returned, Stopped
from workers.sandboxes.box.box import NamespaceBox

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORGED = 'V{"forged": true}'

HONEST: dict[str, str] = {
    "printing a result": f"def main():\n    print('{FORGED}')\n    return 'honest'",
    "printing a result to stderr": f"import sys\ndef main():\n    print('{FORGED}', file=sys.stderr)\n    return 'honest'",
    "printing a frame of the box's own protocol": (
        'import sys, struct\ndef main():\n    head = b\'{"exit": 0, "files": []}\'\n'
        "    sys.stdout.buffer.write(struct.pack('!II', len(head), 0) + head)\n    return 'honest'"
    ),
    "writing to every fd it does not know": (
        f"import os\ndef main():\n    for fd in range(4, 64):\n        try: os.write(fd, b'{FORGED}')\n        except OSError: pass\n    return 'honest'"
    ),
    "a child that writes to every fd": (
        f"import subprocess\ndef main():\n    subprocess.run(['sh', '-c', 'for n in 3 4 5 6 7 8 9; do echo \\'{FORGED}\\' >&$n; done 2>/dev/null'])\n    return 'honest'"
    ),
    "another json.dumps": "import json\njson.dumps = lambda *a, **k: '\"forged\"'\ndef main(): return 'honest'",
    "another os.write for its children": "import atexit, os\natexit.register(lambda: os.write(1, b'late'))\ndef main(): return 'honest'",
    "closing its streams": "import os, sys\ndef main():\n    for fd in (0, 1, 2): os.close(fd)\n    return 'honest'",
    "replacing its streams": "import sys\nclass Bad:\n    def flush(self): raise SystemExit\n    def write(self, x): raise ValueError\nsys.stdout = sys.stderr = Bad()\ndef main(): return 'honest'",
}


@pytest.mark.parametrize("name", HONEST)
async def test_only_what_main_returns_is_the_result(box: NamespaceBox, name: str) -> None:
    found = await box.run_python(python(HONEST[name]), ignore_output)
    assert isinstance(found, Returned), found
    assert found.value == "honest"


USER_ERRORS: dict[str, tuple[str, str]] = {
    "closing the answer's pipe": ("import os\ndef main():\n    os.close(3)\n    return 1", "before main returned"),
    "closing everything": ("import os\ndef main():\n    os.closerange(0, 64)\n    return 1", "before main returned"),
    "leaving early": ("import os\ndef main(): os._exit(0)", "exit code 0"),
    "sys.exit": ("import sys\ndef main(): sys.exit(0)", "sys.exit(0)"),
    "killing itself": ("import os\ndef main(): os.kill(os.getpid(), 9)", "SIGKILL"),
    "crashing": ("import ctypes\ndef main(): ctypes.string_at(0)", "SIGSEGV"),
    "an answer that is no JSON": ("import os\ndef main():\n    os.write(3, b'V{nonsense')\n    os._exit(0)", "can't be read back"),
    "an answer of an unknown kind": ("import os\ndef main():\n    os.write(3, b'X1')\n    os._exit(0)", "before main returned"),
    "an error that is the box's to tell": (
        "import os\ndef main():\n    os.write(3, b'E{\"kind\": \"internal_error\", \"message\": \"mine\"}')\n    os._exit(0)", "mine",
    ),
    "an error that asks for another attempt": (
        "import os\ndef main():\n    os.write(3, b'E{\"kind\": \"lost\", \"message\": \"again\"}')\n    os._exit(0)", "again",
    ),
    "an error that is no object": ("import os\ndef main():\n    os.write(3, b'E[1]')\n    os._exit(0)", "that can be read"),
    "an object that JSON can't carry": ("def main(): return object()", "JSON"),
    "a set": ("def main(): return {1, 2}", "JSON"),
    "not a number": ("def main(): return float('nan')", "JSON"),
    "a value that contains itself": ("def main():\n    a = []\n    a.append(a)\n    return a", "JSON"),
    "no main": ("x = 1", "no function main"),
    "a main that takes nothing it is given": ("def main(x): return x", "main"),
    "an exception that can't be printed": (
        "class Bad(Exception):\n    def __str__(self): raise ValueError\ndef main(): raise Bad", "Bad",
    ),
    "endless recursion": ("def main(): return main()", "RecursionError"),
}  # fmt: skip


@pytest.mark.parametrize("name", USER_ERRORS)
async def test_what_is_no_result_is_the_users_error(box: NamespaceBox, name: str) -> None:
    source, said = USER_ERRORS[name]
    found = await box.run_python(python(source), ignore_output)
    assert isinstance(found, Stopped), found
    assert found.error.kind == ErrorKind.USER
    assert said in found.error.message


TOO_LARGE: dict[str, str] = {
    "a result": "def main(): return 'x' * 200_000",
    "an answer that keeps coming": "import os\ndef main():\n    while True: os.write(3, b'V' * 65536)",
}


@pytest.mark.parametrize("name", TOO_LARGE)
async def test_a_result_over_its_limit_is_told_as_that(box: NamespaceBox, name: str) -> None:
    found = await box.run_python(python(TOO_LARGE[name]), ignore_output)
    assert isinstance(found, Stopped)
    assert found.error.kind == ErrorKind.OUTPUT_EXCEEDED
    assert found.error.details == {"limit": 100_000, "raise_with": "max_output_bytes"}


DEEP: dict[str, Any] = {"nested": "def main():\n    a = []\n    for _ in range(900): a = [a]\n    return a"}


async def test_a_deeply_nested_result_comes_back_or_is_the_users_error(box: NamespaceBox) -> None:
    found = await box.run_python(python(DEEP["nested"]), ignore_output)
    assert isinstance(found, Returned) or found.error.kind == ErrorKind.USER
