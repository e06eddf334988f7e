"""Listens for HTTP: takes a port before anything else is opened, and leaves the end to the process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Iterator

import uvicorn

from schemas.errors import Unavailable

#: Connections that may wait to be accepted.
_BACKLOG = 2048


def take_port(host: str, port: int) -> socket.socket:
    """Listen on a port; 0 is any free one. Raises Unavailable with what is in the way, and the fix."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, kind, protocol)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        taken.listen(_BACKLOG)
    except OSError as error:
        raise Unavailable(_why(host, port, error)) from error
    taken.setblocking(False)
    return taken


class ListeningServer(uvicorn.Server):
    """uvicorn, but it says where it listens, and after a signal the process goes on, to close what it has."""

    def __init__(self, config: uvicorn.Config, *, name: str) -> None:
        super().__init__(config)
        self._name = name

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for one in sockets or []:
            print(f"{self._name}: listening on {_address(one)}", flush=True)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self.stop)
        try:
            yield
        finally:
            for name in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(name)

    def stop(self) -> None:
        """Take nothing new, and end once what is under way is done; asked twice, at once."""
        self.force_exit = self.should_exit
        self.should_exit = True


def _why(host: str, port: int, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"port {port} on {host} is taken, perhaps by another flo (see: ss -ltnp 'sport = :{port}'); stop that "
                "program, or choose another port with --port"
            )
        case errno.EACCES:
            return f"port {port} needs more rights than this process has; choose one above 1023 with --port"
        case _:
            return f"{host}:{port} can't be listened on ({error.strerror}); choose another with --host and --port"


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
