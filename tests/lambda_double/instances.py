"""Instances of functions: each one process that executes one invocation after the other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx

from tests.lambda_double.runtime_api import RuntimeServer
from tests.processes import children_of
from tests.servers import free_port, lambda_emulator

_REPOSITORY = Path(__file__).parents[2]


class FunctionError(Exception):
    """The function ended without an answer; what is told is Lambda's payload for it."""

    def __init__(self, payload: bytes) -> None:
        super().__init__(payload.decode(errors="replace"))
        self.payload = payload


@dataclass(frozen=True, slots=True)
class Terms:
    """What every instance gets."""

    home: Path
    timeout: int
    variables: dict[str, str]

    def environment(self, **more: str) -> dict[str, str]:
        known = {"FLO_HOME": str(self.home), "FLO_V8_HOSTS": "1", "FLO_LOG_LEVEL": "warning"}
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        lambdas = {"AWS_LAMBDA_FUNCTION_NAME": "flo", "AWS_LAMBDA_FUNCTION_TIMEOUT": str(self.timeout)}
        return {**inherited, "PYTHONPATH": str(_REPOSITORY), **known, **lambdas, **self.variables, **more}


class Instance(Protocol):
    """One warm process."""

    def kill(self) -> None:
        """End the runtime as the kernel does when it is out of memory."""
        ...

    def invoke(self, event: bytes) -> AsyncIterator[bytes]:
        """Give the answer as it comes. Raises FunctionError; the instance is then of no more use."""
        ...

    async def close(self) -> None: ...


class EmulatedInstance:
    """AWS's emulator, with AWS's runtime in it; `url` is where it takes invocations itself."""

    def __init__(self, process: asyncio.subprocess.Process, http: httpx.AsyncClient, url: str) -> None:
        self.url = url
        self._process = process
        self._http = http

    def kill(self) -> None:
        for child in children_of(self._process.pid):
            os.kill(child, signal.SIGKILL)

    @classmethod
    async def start(cls, terms: Terms, *, handler: str = "workers.lambda_handler.handler") -> EmulatedInstance:
        outside, inside = free_port(), free_port()
        process = await asyncio.create_subprocess_exec(
            lambda_emulator(), "--runtime-interface-emulator-address", f"127.0.0.1:{outside}",
            "--runtime-api-address", f"127.0.0.1:{inside}", sys.executable, "-P", "-m", "awslambdaric", handler,
            cwd=_REPOSITORY, env=terms.environment(), start_new_session=True,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await _listening(outside, process)
        return cls(process, httpx.AsyncClient(timeout=None), f"http://127.0.0.1:{outside}")

    async def invoke(self, event: bytes) -> AsyncIterator[bytes]:
        try:
            path = "/2015-03-31/functions/function/invocations"
            payload = (await self._http.post(self.url + path, content=event)).content
        except httpx.TransportError as error:
            said = {"errorType": "Runtime.ExitError", "errorMessage": f"Runtime exited without a reason ({error!r})"}
            raise FunctionError(json.dumps(said).encode()) from error
        if payload.startswith(b"Task timed out"):
            raise FunctionError(json.dumps({"errorMessage": payload.decode()}).encode())
        with contextlib.suppress(ValueError):
            said = json.loads(payload)
            if isinstance(said, dict) and "errorType" in said:
                raise FunctionError(payload)
        yield payload

    async def close(self) -> None:
        await self._http.aclose()
        await _end(self._process)


class StreamingInstance:
    """Our own runtime, behind a Runtime API of this program."""

    def __init__(self, process: asyncio.subprocess.Process, api: RuntimeServer, terms: Terms) -> None:
        self._process = process
        self._api = api
        self._timeout = terms.timeout

    def kill(self) -> None:
        self._process.kill()

    @classmethod
    async def start(cls, terms: Terms) -> StreamingInstance:
        api = await RuntimeServer.open()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "workers.runner.awslambda", cwd=_REPOSITORY,
            env=terms.environment(AWS_LAMBDA_RUNTIME_API=api.address), start_new_session=True,
        )  # fmt: skip
        return cls(process, api, terms)

    async def invoke(self, event: bytes) -> AsyncIterator[bytes]:
        exited = asyncio.create_task(self._process.wait())
        exited.add_done_callback(self._break_off)
        loop = asyncio.get_running_loop()
        message = f"Task timed out after {self._timeout}.00 seconds"
        ending = loop.call_later(self._timeout, self._api.break_off, "Sandbox.Timedout", message)
        try:
            async for piece in self._api.invoke(event, seconds=self._timeout):
                if isinstance(piece, dict):
                    raise FunctionError(json.dumps(piece).encode())
                yield piece
        finally:
            ending.cancel()
            exited.cancel()

    def _break_off(self, exited: asyncio.Task[int]) -> None:
        if not exited.cancelled():  # else the invocation is over, and another may have begun
            self._api.break_off("Runtime.ExitError", _how(exited.result()))

    async def close(self) -> None:
        await _end(self._process)
        await self._api.aclose()


def _how(code: int) -> str:
    if code < 0:
        name = signal.strsignal(-code) or str(-code)
        return f"RequestId: test Error: Runtime exited with error: signal: {name.lower()}"
    return f"RequestId: test Error: Runtime exited with error: exit status {code}"


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process in good order if it will, and see that it is gone."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), 5)
    except TimeoutError:
        process.kill()
        await process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _listening(port: int, process: asyncio.subprocess.Process) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if process.returncode is not None:
                raise
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
