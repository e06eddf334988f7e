"""Serves the API over HTTP: takes the port before anything else, says where it listens, and stops in good order."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import uvicorn
import uvloop

from dispatch.listening import ListeningServer, take_port
from scheduler.app import create_app
from scheduler.spine import Spine, open_spine
from schemas.errors import SettingsError
from schemas.settings import Compatibility, Settings

#: How long answers under way may take once the server is asked to stop, in seconds.
_GRACE = 8


def serve_api(settings: Settings, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Raises Unavailable when the port is taken, or SettingsError."""
    listening = take_port(host, port)
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


class _Server(ListeningServer):
    """Ends open streams, too, when it is asked to stop."""

    def __init__(self, config: uvicorn.Config, spine: Spine) -> None:
        super().__init__(config, name="flo api")
        self._spine = spine

    def stop(self) -> None:
        super().stop()
        self._spine.stopping.set()


def _check_openness(settings: Settings, listening: socket.socket) -> None:
    """Raise SettingsError where others than this machine's own programs would be let in without a key."""
    host = listening.getsockname()[0]
    if settings.compat_flowengine is Compatibility.OPEN and not ipaddress.ip_address(host).is_loopback:
        listening.close()
        raise SettingsError(
            f"FLO_COMPAT_FLOWENGINE is 'open', which asks nobody for a key, and this API would listen on {host}; "
            "set it to 'key', or listen on 127.0.0.1"
        )
