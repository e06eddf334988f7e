"""The way by bubblewrap (bwrap(1)), for machines where its profile or set-uid bit allows what we are not allowed.

Its arguments make the namespaces and the root; `inside/cold.py` then does in them what a zygote's child does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from schemas.errors import Unavailable
from workers.sandboxes.box.inside import root
from workers.sandboxes.box.inside.room import HOSTNAME
from workers.sandboxes.box.inside.task import INSIDE_ID, Furnishing
from workers.sandboxes.box.runtime import Runtime
from workers.sandboxes.box.ways import Death, Life
from workers.sandboxes.box.zygote import NOBODY

_MB = 1 << 20
#: Of /tmp and /dev/shm, in MB: bubblewrap can't make one file system of them and the work folder.
_SIDE_MB = 16
#: What a full /proc shows that a box has no business with; the way by zygote has a /proc without these.
_HIDDEN_FILES = (
    "cmdline", "config.gz", "kallsyms", "kcore", "key-users", "keys", "kmsg", "kpagecgroup", "kpagecount",
    "kpageflags", "latency_stats", "modules", "pagetypeinfo", "sched_debug", "slabinfo", "sysrq-trigger",
    "timer_list", "timer_stats", "vmallocinfo",
)  # fmt: skip
_HIDDEN_FOLDERS = ("acpi", "asound", "bus", "driver", "dynamic_debug", "fs", "irq", "scsi", "sys", "sysvipc", "tty")


class BubblewrapWay:
    """Starts one bwrap per box."""

    name = "bubblewrap"
    confines = True
    limits_files = False

    def __init__(self, runtime: Runtime) -> None:
        program = shutil.which("bwrap")
        if program is None:
            raise Unavailable("bubblewrap is not installed: sudo apt-get install bubblewrap")
        self._program = program
        self._runtime = runtime
        self._boxes: set[_Wrapped] = set()

    async def launch(self, fds: Sequence[int], given: Furnishing) -> Life:
        told, teller = os.pipe()
        files = {f"/etc/{name}": _memory_file(text) for name, text in root.WRITTEN.items()}
        arguments = [
            self._program, "--info-fd", str(teller), *_arguments(self._runtime, given.tmp_mb),
            *(word for place, fd in files.items() for word in ("--file", str(fd), place)),
            "--remount-ro", "/", "--", *_first_process(self._runtime, fds, given),
        ]  # fmt: skip
        # Root hands over to a user who owns nothing: no check of a file's permissions is ever made for root.
        lesser = NOBODY if os.geteuid() == 0 else None
        try:
            process = subprocess.Popen(  # noqa: ASYNC220 - a fork and an exec: nothing to wait for
                arguments, pass_fds=[*fds, teller, *files.values()], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={}, cwd="/",
                user=lesser, group=lesser, extra_groups=None if lesser is None else [],
            )  # fmt: skip
        except OSError as problem:
            os.close(told)
            raise Unavailable(f"{self._program} does not start: {problem.strerror}") from None
        finally:
            for fd in (teller, *files.values()):
                os.close(fd)
        box = _Wrapped(process, told)
        self._boxes.add(box)
        box.dead.add_done_callback(lambda _: self._boxes.discard(box))
        return box

    async def aclose(self) -> None:
        for box in list(self._boxes):
            box.kill()
        await asyncio.gather(*(box.dead for box in self._boxes))


class _Wrapped:
    """A bwrap process, which watches, and the box's first process, which it tells us of."""

    def __init__(self, process: subprocess.Popen[bytes], told: int) -> None:
        self._process = process
        self._loop = asyncio.get_running_loop()
        self.dead: asyncio.Future[Death] = self._loop.create_future()
        self._watcher = os.pidfd_open(process.pid)
        self._first: int | None = None
        self._told = told
        self._info = b""
        self._kill_asked = False
        self._loop.add_reader(told, self._learn)
        self._loop.add_reader(self._watcher, self._watcher_ended)

    def kill(self) -> None:
        """Kill pid 1, and with it the box; bwrap ends by itself then.

        bwrap itself is never killed: in its first moments its child waits for a word from it, and would wait for ever.
        """
        self._kill_asked = True
        if self._first is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first, signal.SIGKILL)

    def _learn(self) -> None:
        """Take the first process's pid, which bwrap writes before it lets it go on."""
        part = os.read(self._told, 4096)
        self._info += part
        with contextlib.suppress(ValueError, LookupError, ProcessLookupError):
            self._first = os.pidfd_open(json.loads(self._info)["child-pid"])
        if self._first is not None or not part:
            self._stop_learning()
        if self._kill_asked:
            self.kill()

    def _stop_learning(self) -> None:
        self._loop.remove_reader(self._told)
        os.close(self._told)
        self._told = -1

    def _watcher_ended(self) -> None:
        self._loop.remove_reader(self._watcher)
        if self._told >= 0:
            self._learn()
        if self._told >= 0:
            self._stop_learning()
        if self._first is None:
            self._bury()
        else:
            self._loop.add_reader(self._first, self._bury)

    def _bury(self) -> None:
        """Both are dead; pid 1 went after everything else in its namespace."""
        if self._first is not None:
            self._loop.remove_reader(self._first)
            os.close(self._first)
        os.close(self._watcher)
        self._first = None
        _, status, spent = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            os.set_blocking(stderr.fileno(), False)
            said = (stderr.read() or b"").decode(errors="replace").strip()
        self.dead.set_result(
            Death(
                code=self._process.returncode,
                cpu_seconds=spent.ru_utime + spent.ru_stime,
                largest_kb=spent.ru_maxrss,
                fault=said[-500:] if said.startswith("bwrap:") else "",
            )
        )


def _arguments(runtime: Runtime, tmp_mb: int) -> list[str]:
    words = [
        "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup",
        "--as-pid-1", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv",
        "--uid", str(INSIDE_ID), "--gid", str(INSIDE_ID), "--hostname", HOSTNAME,
    ]  # fmt: skip
    for name in root.SYSTEM:
        words += _bring(f"/{name}")
    for name in root.ETC:
        words += _bring(f"/etc/{name}")
    for inside, here in runtime.mounts.items():
        words += ["--ro-bind", here, inside]
    words += ["--dir", "/run", "--dir", "/var", "--symlink", "/tmp", "/var/tmp", "--dir", "/dev"]
    for name in root.DEVICES:
        words += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for name, target in root.DEVICE_LINKS.items():
        words += ["--symlink", target, f"/dev/{name}"]
    words += ["--size", str(_SIDE_MB * _MB), "--tmpfs", "/tmp", "--size", str(_SIDE_MB * _MB), "--tmpfs", "/dev/shm"]
    words += ["--size", str(max(1, tmp_mb) * _MB), "--tmpfs", "/work", "--proc", "/proc"]
    for name in _HIDDEN_FOLDERS:
        if Path("/proc", name).exists():
            words += ["--tmpfs", f"/proc/{name}", "--remount-ro", f"/proc/{name}"]
    for name in _HIDDEN_FILES:
        if Path("/proc", name).exists():
            words += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    if runtime.library_path:
        words += ["--setenv", "LD_LIBRARY_PATH", runtime.library_path]
    return [*words, "--chdir", "/work"]


def _bring(path: str) -> list[str]:
    place = Path(path)
    if place.is_symlink():
        return ["--symlink", str(place.readlink()), path]
    return ["--ro-bind", path, path] if place.exists() else []


def _first_process(runtime: Runtime, fds: Sequence[int], given: Furnishing) -> list[str]:
    code = f"import sys; sys.path[:0] = {[*runtime.path]!r}; from inside.cold import main; main()"
    return [runtime.python, "-I", "-S", "-c", code, json.dumps({"given": asdict(given), "fds": list(fds)})]


def _memory_file(text: str) -> int:
    fd = os.memfd_create("flo")
    os.write(fd, text.encode())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
