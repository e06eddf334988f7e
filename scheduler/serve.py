"""Serves the API over HTTP: takes the port before anything else, says where it listens, and stops in good order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import signal
import socket
from collections.abc import Iterator

import uvicorn
import uvloop

from scheduler.app import create_app
from scheduler.spine import Spine, open_spine
from schemas.errors import SettingsError, Unavailable
from schemas.settings import Compatibility, Settings

#: How long answers under way may take once the server is asked to stop, in seconds.
_GRACE = 8


def serve_api(settings: Settings, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Raises Unavailable when the port is taken, or SettingsError."""
    listening = _take_port(host, port)
    _check_openness(settings, listening)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, listening))


async def _serve(settings: Settings, listening: socket.socket) -> None:
    async with open_spine(settings) as spine:
        config = uvicorn.Config(
            create_app(settings, spine=spine),
            http="httptools",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_GRACE,
        )
        await _Server(config, spine).serve(sockets=[listening])


class _Server(uvicorn.Server):
    """uvicorn, but a signal also ends open streams, and the process goes on to close its spine."""

    def __init__(self, config: uvicorn.Config, spine: Spine) -> None:
        super().__init__(config)
        self._spine = spine

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for one in sockets or []:
            print(f"flo api: listening on {_address(one)}", flush=True)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop)
        try:
            yield
        finally:
            for name in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(name)

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self._spine.stopping.set()


def _take_port(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, kind, protocol)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        taken.listen(2048)
    except OSError as error:
        raise Unavailable(_why(host, port, error)) from error
    taken.setblocking(False)
    return taken


def _check_openness(settings: Settings, listening: socket.socket) -> None:
    """Raise SettingsError where others than this machine's own programs would be let in without a key."""
    host = listening.getsockname()[0]
    if settings.compat_flowengine is Compatibility.OPEN and not ipaddress.ip_address(host).is_loopback:
        listening.close()
        raise SettingsError(
            f"FLO_COMPAT_FLOWENGINE is 'open', which asks nobody for a key, and this API would listen on {host}; "
            "set it to 'key', or listen on 127.0.0.1"
        )


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
