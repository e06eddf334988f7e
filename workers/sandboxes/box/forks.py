"""The worker's end of a warm Python that forks boxes out of itself. The other end is `inside/zygote.py`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from schemas.errors import Unavailable
from workers.sandboxes.box.inside.task import Furnishing
from workers.sandboxes.box.ways import Death

_LONGEST_MESSAGE = 65536


class _Box:
    """One box, from its fork to its death (`ways.Life`)."""

    def __init__(self, server: ForkServer, number: int) -> None:
        self.dead: asyncio.Future[Death] = asyncio.get_running_loop().create_future()
        self._server = server
        self._number = number

    def kill(self) -> None:
        if not self.dead.done():
            self._server.kill(self._number)


class ForkServer:
    """A process of ours that has one thread, one socket to us, and makes boxes; a box that is lost with it says so."""

    def __init__(self, process: subprocess.Popen[bytes], door: socket.socket) -> None:
        self._process = process
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._boxes: dict[int, _Box] = {}
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()

    @classmethod
    async def start(
        cls, python: str, entry: str, told: Mapping[str, Any], *, user: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> ForkServer:  # fmt: skip
        """Start `module:function` of `inside`, as another user if one is given; raise Unavailable if it can't work."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        folder, (module, function) = str(Path(__file__).parent), entry.split(":")
        # The folder is no place for a user's program to find modules in.
        code = (
            f"import sys; sys.path.insert(0, {folder!r}); from {module} import {function}; "
            f"del sys.path[0]; {function}()"
        )
        with theirs:
            process = subprocess.Popen(  # noqa: ASYNC220 - a fork and an exec: nothing to wait for
                [python, "-I", "-S", "-c", code, json.dumps({**told, "fd": theirs.fileno()})],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, env=dict(env or {}), cwd="/",
                user=user, group=user, extra_groups=None if user is None else [],
            )  # fmt: skip
        ours.setblocking(False)
        server = cls(process, ours)
        server._loop.add_reader(ours, server._hear)
        try:
            await server._ready
        except BaseException:
            await server.aclose()
            raise
        return server

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

    async def aclose(self, *, patience: float = 0) -> None:
        """End the server; its boxes die with it, which is confirmed by whoever reads their last words.

        With `patience`, in seconds, it may leave by itself, as it does when its worker is gone.
        """
        if patience and not self.is_dead:
            with contextlib.suppress(OSError):
                self._door.shutdown(socket.SHUT_WR)
            await asyncio.wait([self._gone], timeout=patience)
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
