"""What the worker and a box's first process say to each other: a JSON head and the bytes that belong to it.

8 bytes: length of the head, length of the body (big endian)    head: JSON object    body: bytes
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_LENGTHS = struct.Struct("!II")


def pack(head: dict[str, Any], body: bytes = b"") -> bytes:
    text = json.dumps(head).encode()
    return b"".join((_LENGTHS.pack(len(text), len(body)), text, body))


def lengths(prefix: bytes) -> tuple[int, int]:
    """Read the length of head and body from the first `PREFIX` bytes."""
    head, body = _LENGTHS.unpack(prefix)
    return head, body


PREFIX = _LENGTHS.size


def read(source: socket.socket) -> tuple[bytes, bytes]:
    """Wait for one whole frame; raise EOFError when the other side is gone."""
    head, body = lengths(_exactly(source, PREFIX))
    return _exactly(source, head), _exactly(source, body)


def _exactly(source: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = source.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError("the worker is gone")
        parts += part
    return bytes(parts)
