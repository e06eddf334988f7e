"""The same first process, started by bubblewrap, which has made the namespaces and the root already."""

from __future__ import annotations

import json
import sys
from typing import NoReturn

from . import python  # noqa: F401 - read before the filter holds
from .supervisor import supervise
from .task import Furnishing
from .walled import WalledRoom


def main() -> NoReturn:
    """`sys.argv[1]` is JSON: `given`, and `fds`, the numbers of the file descriptors that were inherited."""
    order = json.loads(sys.argv[1])
    # bubblewrap has furnished it, under the only id there is; its loopback is always up.
    supervise(WalledRoom(Furnishing(**order["given"])), order["fds"])
