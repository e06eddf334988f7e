"""`python -m tests.k8s_double --folder NEW`: serve until SIGTERM; the first line says where, and the token."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import signal
import sys
from pathlib import Path

import uvicorn

from tests.k8s_double.api import Api
from tests.k8s_double.jobs import Jobs
from tests.k8s_double.kubelet import Kubelet
from tests.k8s_double.mischief import Mischief
from tests.k8s_double.shelf import Shelf
from tests.servers import listening_socket

ROOT = Path(__file__).resolve().parents[2]
#: What containers of our image find: this environment's Python, and this repository.
IMAGE = {
    "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}",
    "PYTHONPATH": str(ROOT),
    "FLO_V8_HOSTS": "1",
    "FLO_LOG_LEVEL": "warning",
}


async def serve(images: list[str], folder: Path, *, cpu: str, memory: str) -> None:
    shelf = Shelf()
    kubelet = Kubelet(shelf, folder, images=dict.fromkeys(images, IMAGE), cpu=cpu, memory=memory)
    jobs = Jobs(shelf, kubelet)
    token = secrets.token_urlsafe(16)
    listening = listening_socket()
    app = Api(shelf, jobs, kubelet, Mischief(), token=token).app()
    config = uvicorn.Config(app, http="httptools", access_log=False, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]  # watches would keep it for ever
    stopping = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    print(f"http://127.0.0.1:{listening.getsockname()[1]} {token}", flush=True)
    await stopping.wait()
    await jobs.aclose()
    await kubelet.aclose()
    server.should_exit = True
    shelf.drop_watches()
    await serving


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A Kubernetes API for tests.")
    parser.add_argument("--folder", type=Path, required=True, help="for the pods' own folders; it is made")
    parser.add_argument("--images", nargs="*", default=["flo-runner:test"])
    parser.add_argument("--cpu", default="1000")
    parser.add_argument("--memory", default="1Ti")
    given = parser.parse_args()
    asyncio.run(serve(given.images, given.folder, cpu=given.cpu, memory=given.memory))
