"""Stands for an engine: imported by the zygote, called in a box with its socket and its inputs."""

from __future__ import annotations

import os
import socket
import sys

#: Tells whether this process imported us, or inherited us from a zygote.
IMPORTED_BY = os.getpid()


def serve(channel: int, *, greeting: str) -> int:
    with socket.socket(fileno=channel) as worker:
        name = worker.recv(100).decode()
        worker.sendall(f"{greeting} {name}, {os.getpid() != IMPORTED_BY}".encode())
    print("served", file=sys.stderr)
    return 4
