"""The Docker daemon, asked through its SDK in threads, with its troubles in words of ours."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from schemas.errors import FloError, Unavailable
from schemas.settings import Settings
from workers.sandboxes.docker.tls import as_plain

T = TypeVar("T")

#: Where a machine's own daemon listens.
SOCKET = Path("/var/run/docker.sock")
#: Questions to the daemon that are open at once; each has a thread.
_AT_ONCE = 16
#: Seconds after which a daemon that says nothing is taken to be away.
PATIENCE = 20.0
_FIX = "start it, or set DOCKER_HOST to one that runs"


class NoDaemon(Unavailable):
    """The Docker daemon does not answer."""


class NotThere(FloError):
    """The daemon has no such container or image."""


class Declined(Unavailable):
    """The daemon would not do it."""


class Daemon:
    """One Docker daemon. Whatever is asked raises NoDaemon, NotThere or Declined."""

    def __init__(self, settings: Settings) -> None:
        """Raises Unavailable where the SDK is not installed."""
        self.url = settings.docker_host or f"unix://{SOCKET}"
        self._settings = settings
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="docker")
        self._client: Any = None
        self._connecting = threading.Lock()
        self._is_closed = False

    async def ask(self, question: Callable[[Any], T]) -> T:
        """Put a question to the SDK's low-level client, in a thread: cancelling this does not take it back."""
        if self._is_closed:
            raise NoDaemon(f"the Docker daemon at {self.url} is not asked any more: this place is closing")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, question)

    async def attach(self, container: str) -> socket.socket:
        """Connect to the stdin, stdout and stderr of a container, all in one socket."""
        wanted = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        return as_plain(await self.ask(lambda client: client.attach_socket(container, wanted)))

    def close(self) -> None:
        """Let go of the daemon; what is still being asked is not waited for."""
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    def _ask(self, question: Callable[[Any], T]) -> T:
        with self._worded():
            with self._connecting:
                if self._client is None:
                    self._client = self._connect()
            return question(self._client)

    def _connect(self) -> Any:
        import docker

        given = {
            "DOCKER_HOST": self.url,
            "DOCKER_TLS_VERIFY": self._settings.docker_tls_verify or "",
            "DOCKER_CERT_PATH": self._settings.docker_cert_path or "",
        }
        kwargs = docker.utils.kwargs_from_env(environment={name: value for name, value in given.items() if value})
        return docker.APIClient(version="auto", timeout=PATIENCE, max_pool_size=_AT_ONCE, **kwargs)

    @contextlib.contextmanager
    def _worded(self) -> Iterator[None]:
        try:
            import docker.errors
            import requests
        except ImportError:
            raise Unavailable("the Docker SDK is not installed: uv sync --extra docker") from None
        try:
            yield
        except docker.errors.NotFound as problem:
            raise NotThere(_said(problem)) from None
        except docker.errors.APIError as problem:
            raise Declined(f"the Docker daemon at {self.url} declined: {_said(problem)}") from None
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as problem:
            raise NoDaemon(f"the Docker daemon at {self.url} does not answer ({_cause(problem)}): {_FIX}") from None


def _said(problem: Any) -> str:
    return str(problem.explanation or problem)


def _cause(problem: BaseException) -> str:
    """Find the plain reason below what the layers above have made of it."""
    while (below := problem.__cause__ or problem.__context__) is not None:
        problem = below
    return str(problem)[:200] or type(problem).__name__
