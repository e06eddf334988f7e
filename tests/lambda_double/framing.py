"""The framing of `application/vnd.amazon.eventstream`: length, length of headers, CRC, headers, payload, CRC.

https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html; the events are those of InvokeWithResponseStream.
"""

from __future__ import annotations

import json
import struct
from binascii import crc32

_STRING = 7


def chunk(payload: bytes) -> bytes:
    return _message({":event-type": "PayloadChunk", ":content-type": "application/octet-stream"}, payload)


def complete(error: str | None = None, details: str = "") -> bytes:
    said = {} if error is None else {"ErrorCode": error, "ErrorDetails": details}
    return _message({":event-type": "InvokeComplete", ":content-type": "application/json"}, json.dumps(said).encode())


def _message(headers: dict[str, str], payload: bytes) -> bytes:
    written = b"".join(_header(name, value) for name, value in {**headers, ":message-type": "event"}.items())
    prelude = struct.pack("!II", len(written) + len(payload) + 16, len(written))
    body = prelude + struct.pack("!I", crc32(prelude)) + written + payload
    return body + struct.pack("!I", crc32(body))


def _header(name: str, value: str) -> bytes:
    return struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", _STRING, len(value)) + value.encode()
