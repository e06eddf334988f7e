"""The same first process, started by bubblewrap, which has made the namespaces and the root already."""

from __future__ import annotations

import json
import sys
from typing import NoReturn

from . import python  # noqa: F401 - read before the filter holds
from .supervisor import supervise
from .task import Furnishing


def main() -> NoReturn:
    """`sys.argv[1]` is JSON: `given`, and the numbers of the `fds` that were inherited."""
    order = json.loads(sys.argv[1])
    supervise(Furnishing(**order["given"]), order["fds"], lambda _: None)
