"""The same first process, started by bubblewrap, which has made the namespaces and the root already."""

from __future__ import annotations

import json
import sys
from typing import NoReturn

from . import python  # noqa: F401 - read before the filter holds
from .supervisor import supervise
from .task import Task


class _WrappedRoom:
    """A box that bubblewrap has furnished: sizes are in its arguments, and loopback is always up."""

    outside_id = -1

    def furnish(self) -> None:
        return None

    def settle(self, task: Task) -> None:
        return None


def main() -> NoReturn:
    """`sys.argv[1]` is JSON: the numbers of the file descriptors that were inherited."""
    supervise(_WrappedRoom(), json.loads(sys.argv[1]))
