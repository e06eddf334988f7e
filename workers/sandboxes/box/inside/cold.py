"""The same first process, started by bubblewrap, which has made the namespaces and the root already."""

from __future__ import annotations

import json
import sys
from typing import NoReturn

from . import python  # noqa: F401 - read before the filter holds
from .supervisor import supervise
from .task import Furnishing


class _WrappedRoom:
    """A box that bubblewrap has furnished; its loopback is always up."""

    outside_id = -1

    def __init__(self, given: Furnishing) -> None:
        self.given = given

    def furnish(self) -> None:
        return None


def main() -> NoReturn:
    """`sys.argv[1]` is JSON: `given`, and `fds`, the numbers of the file descriptors that were inherited."""
    order = json.loads(sys.argv[1])
    supervise(_WrappedRoom(Furnishing(**order["given"])), order["fds"])
