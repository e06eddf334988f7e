"""The quick way: a warm Python that forks each box out of itself. The other end is `inside/zygote.py`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from schemas.errors import Unavailable
from workers.sandboxes.box.inside.task import Furnishing
from workers.sandboxes.box.runtime import Runtime
from workers.sandboxes.box.ways import Death, Life

#: The first of the ids, outside, that boxes run under: high, and nobody's. Each box of a worker has another one.
FIRST_ID = 0x6000_0000
#: The id of a way that has only one, when root starts it.
NOBODY = FIRST_ID - 1
_IDS_PER_WORKER = 4096
_WORKERS = 65536
_LONGEST_MESSAGE = 65536


class ZygoteWay:
    """Keeps one zygote alive; a box that is lost with it says so, and the next order gets a new one."""

    def __init__(self, runtime: Runtime, *, as_root: bool) -> None:
        self.limits_files = True
        self.name = "zygote" if as_root else "zygote with a user namespace"
        self._runtime = runtime
        self._as_root = as_root
        self._ids = itertools.count()
        self._starting = asyncio.Lock()
        self._zygote: _Zygote | None = None

    async def launch(self, fds: Sequence[int], given: Furnishing) -> Life:
        async with self._starting:
            if self._zygote is None or self._zygote.is_dead:
                self._zygote = await _Zygote.start(self._runtime, as_root=self._as_root)
        return await self._zygote.launch(fds, given, outside_id=self._next_id() if self._as_root else -1)

    async def aclose(self) -> None:
        if self._zygote is not None:
            await self._zygote.aclose()

    def _next_id(self) -> int:
        return FIRST_ID + os.getpid() % _WORKERS * _IDS_PER_WORKER + next(self._ids) % _IDS_PER_WORKER


class _Box:
    def __init__(self, zygote: _Zygote, number: int) -> None:
        self.dead: asyncio.Future[Death] = asyncio.get_running_loop().create_future()
        self._zygote = zygote
        self._number = number

    def kill(self) -> None:
        if not self.dead.done():
            self._zygote.kill(self._number)


class _Zygote:
    def __init__(self, process: subprocess.Popen[bytes], door: socket.socket) -> None:
        self._process = process
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._boxes: dict[int, _Box] = {}
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()

    @classmethod
    async def start(cls, runtime: Runtime, *, as_root: bool) -> _Zygote:
        """Start it; raise Unavailable with its reason if it can't do its work here."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        told = {
            "fd": theirs.fileno(), "as_root": as_root, "mounts": dict(runtime.mounts), "python": runtime.python,
            "library_path": runtime.library_path, "preload": runtime.preload, "path": runtime.path,
        }  # fmt: skip
        folder = str(Path(__file__).parent)
        code = f"import sys; sys.path.insert(0, {folder!r}); from inside.zygote import enter; enter()"
        # Root hands over to a user who owns nothing: mapped to itself, root would still be root to every file.
        lesser = NOBODY if os.geteuid() == 0 and not as_root else None
        with theirs:
            process = subprocess.Popen(  # noqa: ASYNC220 - a fork and an exec: nothing to wait for
                [runtime.python_here, "-I", "-S", "-c", code, json.dumps(told)],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, env={}, cwd="/",
                user=lesser, group=lesser, extra_groups=None if lesser is None else [],
            )  # fmt: skip
        ours.setblocking(False)
        zygote = cls(process, ours)
        zygote._loop.add_reader(ours, zygote._hear)
        try:
            await zygote._ready
        except BaseException:
            await zygote.aclose()
            raise
        return zygote

    @property
    def is_dead(self) -> bool:
        return self._gone.done()

    async def launch(self, fds: Sequence[int], given: Furnishing, *, outside_id: int) -> _Box:
        number = next(self._numbers)
        box = self._boxes[number] = _Box(self, number)
        order = json.dumps({"do": "spawn", "box": number, "outside_id": outside_id, "given": asdict(given)}).encode()
        try:
            while True:
                try:
                    socket.send_fds(self._door, [order], list(fds))
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.001)  # hundreds of orders are under way: its socket is full
        except OSError as problem:
            self._boxes.pop(number)
            raise Unavailable(f"the zygote is gone ({problem.strerror})") from None
        return box

    def kill(self, number: int) -> None:
        try:
            self._door.send(json.dumps({"do": "kill", "box": number}).encode())
        except BlockingIOError:
            self._loop.call_later(0.001, self.kill, number)
        except OSError:
            pass  # it is gone, and its boxes with it

    async def aclose(self) -> None:
        """End the zygote; its boxes die with it, which is confirmed by whoever reads their last words."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        await asyncio.shield(self._gone)

    def _hear(self) -> None:
        while True:
            try:
                text = self._door.recv(_LONGEST_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                text = b""
            if not text:
                self._bury()
                return
            self._take(json.loads(text))

    def _take(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self._ready.set_result(None)
        elif "box" in message:
            box = self._boxes.pop(message["box"], None)
            if box is not None and not box.dead.done():
                box.dead.set_result(_death(message))
        elif not self._ready.done():
            self._ready.set_exception(Unavailable(f"the zygote can't build a box here: {message['failed']}"))

    def _bury(self) -> None:
        self._loop.remove_reader(self._door)
        self._door.close()
        self._process.kill()
        code = self._process.wait()  # it is dying: its socket is closed
        if not self._ready.done():
            self._ready.set_exception(Unavailable(f"the zygote ended at its start (code {code})"))
            self._ready.exception()
        for box in self._boxes.values():
            if not box.dead.done():
                box.dead.set_result(Death(code=-9, cpu_seconds=0, largest_kb=0, fault="the zygote died"))
        self._boxes.clear()
        self._gone.set_result(None)


def _death(message: dict[str, Any]) -> Death:
    if "failed" in message:
        return Death(code=1, cpu_seconds=0, largest_kb=0, fault=message["failed"])
    return Death(code=message["code"], cpu_seconds=message["cpu_seconds"], largest_kb=message["largest_kb"], fault="")
