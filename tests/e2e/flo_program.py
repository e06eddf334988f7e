"""The `flo` command as a user types it: started in a home of its own, watched, and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx

from flo.client import FloClient
from flo.home import Endpoint, Home
from flo.wire import Run

#: Seconds; a test machine runs several whole stacks at once.
PATIENCE = 90

_FLO = (sys.executable, "-P", "-m", "flo")
#: Variables of the tester's own shell that would change what the command does.
_OURS = ("FLO_", "REDIS_URL", "EXECUTION_BACKEND", "ASYNC_EXECUTION_BACKEND", "FORCE_COLOR", "COLUMNS")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    error: str


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**kept, "FLO_HOME": str(home), **more}


def flo(*arguments: str, home: Path, stdin: str = "", **more: str) -> Ended:
    """Run a command to its end."""
    done = subprocess.run(
        [*_FLO, *arguments],
        input=stdin,
        env=environment(home, **more),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


class FloDev:
    """A running `flo dev`."""

    def __init__(self, process: subprocess.Popen[bytes], home: Path, said: Path) -> None:
        self.process = process
        self.home = home
        self._said = said

    @property
    def said(self) -> str:
        return self._said.read_text(errors="replace")

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers, once it does."""

        def up() -> Endpoint | None:
            assert self.process.poll() is None, f"flo dev ended with {self.process.returncode}:\n{self.said}"
            found = Home(self.home).endpoint()
            return found if found and found["pid"] == self.process.pid else None

        return until(up)

    def client(self, app: str = "default") -> FloClient:
        return FloClient(self.endpoint["api"], key=Home(self.home).key(), app=app)

    def family(self) -> set[int]:
        """Its process, and all that it and its children started."""
        parents = _parents()
        family = newest = {self.process.pid}
        while newest := {child for child, parent in parents.items() if parent in newest}:
            family = family | newest
        return family

    def child(self, words: str) -> int:
        """The pid of the child whose command line has these words."""
        return until(lambda: next((pid for pid in self.family() if words in _command_line(pid)), None))

    def stop(self) -> int:
        """Ask it to stop, as Ctrl-C does, and give its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)


@contextmanager
def flo_dev(home: Path, *options: str, **more: str) -> Iterator[FloDev]:
    """Run `flo dev` on free ports, without Flower unless asked for."""
    home.parent.mkdir(parents=True, exist_ok=True)
    said = home.parent / f"{home.name}.said"
    command = [*_FLO, "dev", "--port", "0", *(options or ("--no-flower",))]
    with said.open("wb") as out:
        process = subprocess.Popen(command, env=environment(home, **more), stdout=out, stderr=out)
    dev = FloDev(process, home, said)
    try:
        yield dev
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def flo_dev_with_hello(folder: Path) -> Iterator[FloDev]:
    """Run `flo dev`, and push the flow `hello` of `flo init` to it."""
    with flo_dev(folder / "home") as dev:
        assert dev.endpoint
        assert flo("init", str(folder / "hello.json"), home=dev.home).code == 0
        assert flo("push", str(folder / "hello.json"), home=dev.home).code == 0
        yield dev


def all_over(client: FloClient) -> list[Run] | None:
    """List the runs, once they all have ended."""
    runs = list(client.runs(limit=1000))
    return None if {run["status"] for run in runs} & {"queued", "running", "waiting"} else runs


def until(ask: Callable[[], T | None]) -> T:
    """Ask again and again until there is an answer."""
    deadline = time.monotonic() + PATIENCE
    while (answer := ask()) is None:
        assert time.monotonic() < deadline, f"it did not come to pass within {PATIENCE} s"
        time.sleep(0.05)
    return answer


def until_all_gone(pids: set[int]) -> None:
    """Wait until none of these processes lives."""
    until(lambda: None if pids & _parents().keys() else True)


def _parents() -> dict[int, int]:
    """Tell each living process's parent (proc_pid_stat(5))."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, *_ = file.read_text().rpartition(")")[2].split()
            if state != "Z":
                parents[int(file.parent.name)] = int(parent)
    return parents


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def kill(pid: int) -> None:
    """End a process at once, as the kernel does when memory runs out."""
    os.kill(pid, signal.SIGKILL)


def status_of(url: str) -> int | None:
    """Ask a web page; give its status, None while nothing answers."""
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.HTTPError:
        return None
