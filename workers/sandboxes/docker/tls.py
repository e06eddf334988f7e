"""Makes what the SDK gives for an attached container a plain socket, which an event loop can read."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import Any

_CHUNK = 65536


def as_plain(attached: Any) -> socket.socket:
    """Give a non-blocking socket of our own for it. A connection by TLS gets two threads that pass on what it says."""
    if isinstance(attached, ssl.SSLSocket):
        ours, theirs = socket.socketpair()
        attached.settimeout(None)
        for source, sink in ((attached, theirs), (theirs, attached)):
            threading.Thread(target=_pass_on, args=(source, sink), daemon=True, name="docker tls").start()
    else:
        ours = socket.socket(fileno=socket.dup(attached.fileno()))
        # The response that it came with closes it; the other way round would trip.
        getattr(attached, "_response", attached).close()
    ours.setblocking(False)
    return ours


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
