"""`python -P -m tests.lambda_double`: listen on a free port, say on which, and leave nothing behind."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from tests.lambda_double.instances import Terms
from tests.lambda_double.service import Service
from tests.processes import children_of

_PR_SET_CHILD_SUBREAPER = 36


class _Server(uvicorn.Server):
    """uvicorn, but it leaves signals alone: after it, there is still something to close."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        print(f"lambda: listening on http://127.0.0.1:{port}", flush=True)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(given: argparse.Namespace, home: Path) -> None:
    variables = dict(one.split("=", 1) for one in given.set)
    service = Service(Terms(home=home, timeout=given.timeout, variables=variables), most=given.concurrency)
    config = uvicorn.Config(
        service.app(), port=given.port, log_level="error", lifespan="off", timeout_graceful_shutdown=1
    )
    server = _Server(config)
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, setattr, server, "should_exit", True)
    await server.serve()
    await service.close()


def _reap_all() -> None:
    """Kill what processes of instances have left behind: as their subreaper, it is ours."""
    while children := children_of(os.getpid()):
        for child in children:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="lambda_double")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--timeout", type=int, default=15, help="seconds that a function may run")
    parser.add_argument("--concurrency", type=int, default=4, help="invocations of each function at once")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a variable of the functions")
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    with tempfile.TemporaryDirectory(prefix="flo-lambda-") as home:
        try:
            asyncio.run(_serve(parser.parse_args(), Path(home)))
        finally:
            _reap_all()


if __name__ == "__main__":
    main()
