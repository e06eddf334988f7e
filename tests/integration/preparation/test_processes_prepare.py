"""Several processes that share a home, and what they leave when they are killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("preparing_program.py")
ROOT = Path(__file__).parents[3]
SOURCE = "export default (n: number) => n"


class Home:
    """A home that processes share, and a count of what they did there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "home"
        self.builds = folder / "builds.txt"
        self.builds.touch()

    @contextlib.contextmanager
    def process(self, source: str = SOURCE, **order: Any) -> Iterator[subprocess.Popen[str]]:
        """Start a process that is ready to ask; it is dead when this ends."""
        whole = {"home": str(self.folder), "builds": str(self.builds), "source": source, **order}
        command = [sys.executable, str(PROGRAM), json.dumps(whole)]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def did(self, what: str) -> int:
        return sum(line.startswith(what) for line in self.builds.read_text().splitlines())

    def left(self) -> list[str]:
        """List what is in the caches beside finished entries."""
        cache = self.folder / "cache"
        left = [*cache.glob("*/locks/*"), *(cache / "npm").glob("*.*"), *cache.glob("code/entries/*/.*")]
        return [str(path) for path in left]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def told(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == line


def ask(process: subprocess.Popen[str]) -> None:
    """Have the process ask, and return when it is about to."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    told(process, "asking")


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(rest(process)[-1])
    return found


def rest(process: subprocess.Popen[str]) -> list[str]:
    """Give the lines that it still says; the last is its answer."""
    assert process.stdout is not None
    return process.stdout.read().splitlines()


def test_ten_processes_that_ask_together_build_once(home: Home) -> None:
    with contextlib.ExitStack() as running:
        processes = [running.enter_context(home.process(dependencies={"tiny": "1.0.0"})) for _ in range(10)]
        [told(process, "ready") for process in processes]
        [ask(process) for process in processes]
        answers = [answer(process) for process in processes]

    assert {found["code"] for found in answers} == {answers[0]["code"]}
    assert (home.did("build"), home.did("install")) == (1, 1)
    assert home.left() == []


def test_ten_processes_learn_of_a_failed_build_that_one_did(home: Home) -> None:
    with contextlib.ExitStack() as running:
        processes = [running.enter_context(home.process("export default (n: = 3")) for _ in range(10)]
        [told(process, "ready") for process in processes]
        [ask(process) for process in processes]
        answers = [answer(process) for process in processes]

    assert {(found["kind"], found["line"], found["column"]) for found in answers} == {("syntax_error", 1, 20)}
    assert home.did("build") == 1


@pytest.mark.parametrize("where", ["build", "install"])
def test_a_builder_that_is_killed_midway_holds_up_nobody_and_leaves_nothing(home: Home, where: str) -> None:
    tiny = {"tiny": "1.0.0"}
    source = "import tiny from 'tiny'; export default () => tiny"
    with home.process(source, dependencies=tiny, hang=where) as victim, home.process(source, dependencies=tiny) as heir:
        told(victim, "ready")
        told(heir, "ready")
        ask(victim)
        told(victim, "hanging")
        ask(heir)

        victim.send_signal(signal.SIGKILL)

        assert '"tiny"' in answer(heir)["code"]
    assert home.did("build") == 2
    assert home.left() == []


def test_a_full_disk_costs_the_cache_and_says_so_once(home: Home) -> None:
    with home.process(full_disk=True, times=3, builds=os.devnull) as process:
        told(process, "ready")
        ask(process)
        lines = rest(process)

    warnings = [line for line in lines if "code_cache.unusable" in line]
    assert json.loads(lines[-1])["code"] != ""
    assert len(warnings) == 1
    assert home.left() == []


def test_a_home_that_can_not_be_made_costs_the_cache_only(home: Home) -> None:
    home.folder.write_text("a file where the folder should be")
    with home.process("import tiny from 'tiny'; export default () => tiny", dependencies={"tiny": "1.0.0"}) as process:
        told(process, "ready")
        ask(process)
        lines = rest(process)

    assert '"tiny"' in json.loads(lines[-1])["code"]
    assert [line for line in lines if "code_cache.unusable" in line] != []
    assert [line for line in lines if "npm_cache.unusable" in line] != []
