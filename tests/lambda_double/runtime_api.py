"""A Runtime API for one runtime: gives it an event, and passes on what it streams, trailers included."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

Piece = bytes | dict[str, Any] | None


class RuntimeServer:
    """https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html, as far as a runtime needs it."""

    def __init__(self) -> None:
        self._server: asyncio.Server
        self._events: asyncio.Queue[tuple[bytes, float]] = asyncio.Queue()
        #: What is told of the invocation under way: bytes; an error; None at the end.
        self._told: asyncio.Queue[Piece] = asyncio.Queue()
        self._connections: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls) -> RuntimeServer:
        api = cls()
        api._server = await asyncio.start_server(api._connected, "127.0.0.1", 0)
        return api

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def invoke(self, event: bytes, *, seconds: float) -> AsyncIterator[bytes | dict[str, Any]]:
        """Give an event to the runtime; then what it says, an error as an object."""
        self._told = asyncio.Queue()
        self._events.put_nowait((event, time.time() + seconds))
        while (piece := await self._told.get()) is not None:
            yield piece

    def break_off(self, kind: str, message: str) -> None:
        """Say that the runtime will say nothing more."""
        self._told.put_nowait({"errorType": kind, "errorMessage": message})
        self._told.put_nowait(None)

    async def aclose(self) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass  # the runtime died, and whoever started it says so; or this program ends
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        path = head[0].split(" ")[1]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if path.endswith("/invocation/next"):
            event, deadline = await self._events.get()
            lines = [
                f"Lambda-Runtime-Aws-Request-Id: {secrets.token_hex(16)}",
                f"Lambda-Runtime-Deadline-Ms: {round(deadline * 1000)}",
                f"Content-Length: {len(event)}",
            ]
            writer.write(("HTTP/1.1 200 OK\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode() + event)
        elif path.endswith("/response"):
            assert headers["lambda-runtime-function-response-mode"] == "streaming", headers
            await self._pass_on(reader)
            writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        else:
            body = await reader.readexactly(int(headers["content-length"]))
            self._told.put_nowait(json.loads(body))
            self._told.put_nowait(None)
            writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async def _pass_on(self, reader: asyncio.StreamReader) -> None:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            self._told.put_nowait(await reader.readexactly(size))
            await reader.readexactly(2)
        trailers = {}
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            name, _, value = line.decode().partition(":")
            trailers[name.lower()] = value.strip()
        if error := trailers.get("lambda-runtime-function-error-body"):
            self._told.put_nowait(json.loads(base64.b64decode(error)))
        self._told.put_nowait(None)
