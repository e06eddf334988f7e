"""Lambda's Runtime API, as a runtime of one's own speaks it.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html: ask for the next invocation, answer it, ask again. An
answer in chunks with `Lambda-Runtime-Function-Response-Mode: streaming` reaches the caller as it is written; an error
after the first byte goes into the trailers of the same request.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from schemas.errors import FloError
from schemas.json import JSONObject, to_bytes

_VERSION = "/2018-06-01/runtime"
_ERROR_TYPE, _ERROR_BODY = "Lambda-Runtime-Function-Error-Type", "Lambda-Runtime-Function-Error-Body"


class RuntimeGone(FloError):
    """Lambda's Runtime API does not answer as it should."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of the function."""

    id: str
    event: bytes
    #: When Lambda ends it, in seconds since 1970.
    deadline: float


class RuntimeApi:
    """The Runtime API at `host:port`. Each request has a connection of its own: they are local."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._host = host
        self._port = int(port)

    async def next(self) -> Invocation:
        """Wait for an invocation, however long that takes."""
        headers, body = await self._ask("GET", "/invocation/next")
        return Invocation(
            id=headers["lambda-runtime-aws-request-id"],
            event=body,
            deadline=int(headers["lambda-runtime-deadline-ms"]) / 1000,
        )

    async def respond(self, invocation: Invocation, chunks: AsyncIterator[bytes]) -> None:
        """Stream an answer. What `chunks` raises becomes the function's error, after all that was written."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            head = self._head("POST", f"/invocation/{invocation.id}/response")
            head["Content-Type"] = "application/x-ndjson"
            head["Lambda-Runtime-Function-Response-Mode"] = "streaming"
            head["Transfer-Encoding"] = "chunked"
            head["Trailer"] = f"{_ERROR_TYPE}, {_ERROR_BODY}"
            writer.write(_text(head))
            trailers = await _write_chunks(writer, chunks)
            writer.write(b"0\r\n" + b"".join(f"{name}: {value}\r\n".encode() for name, value in trailers.items()))
            writer.write(b"\r\n")
            await writer.drain()
            await _read(reader)
        finally:
            writer.close()

    async def fail(self, error: BaseException, *, invocation: Invocation | None = None) -> None:
        """Say that an invocation, or the start, failed."""
        path = f"/invocation/{invocation.id}/error" if invocation is not None else "/init/error"
        await self._ask("POST", path, body=to_bytes(_as_error(error)), **{_ERROR_TYPE: type(error).__name__})

    async def _ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[Mapping[str, str], bytes]:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            head = self._head(method, path) | headers
            head["Content-Length"] = str(len(body))
            writer.write(_text(head) + body)
            await writer.drain()
            return await _read(reader)
        finally:
            writer.close()

    def _head(self, method: str, path: str) -> dict[str, str]:
        first = f"{method} {_VERSION}{path} HTTP/1.1"
        return {"": first, "Host": f"{self._host}:{self._port}", "Connection": "close", "User-Agent": "flo"}


async def _write_chunks(writer: asyncio.StreamWriter, chunks: AsyncIterator[bytes]) -> Mapping[str, str]:
    """Write all chunks; give the trailers, which are empty unless something was raised."""
    try:
        async for chunk in chunks:
            writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await writer.drain()
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  the edge of an invocation: its caller must hear of it
        body = base64.b64encode(to_bytes(_as_error(error))).decode()
        return {_ERROR_TYPE: type(error).__name__, _ERROR_BODY: body}
    return {}


async def _read(reader: asyncio.StreamReader) -> tuple[Mapping[str, str], bytes]:
    try:
        first, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split(" ")[1])
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = await _read_chunks(reader)
        elif "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        else:
            body = await reader.read()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, IndexError, ValueError) as error:
        raise RuntimeGone(f"Lambda's Runtime API broke off: {error!r}") from error
    if not 200 <= status < 300:
        raise RuntimeGone(f"Lambda's Runtime API answered {status}: {body[:500].decode(errors='replace')}")
    return headers, body


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(parts)


def _as_error(error: BaseException) -> JSONObject:
    return {"errorMessage": str(error), "errorType": type(error).__name__, "stackTrace": []}


def _text(head: Mapping[str, str]) -> bytes:
    lines = [value if not name else f"{name}: {value}" for name, value in head.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
