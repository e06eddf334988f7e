"""The warm parent of plain processes: forks each order's first process into a room without walls.

It stays until every order is over and its folder gone, also when the worker dies: the last to leave cleans up.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NoReturn

from . import descendants
from .open_room import OpenRoom
from .task import Furnishing
from .zygote import Zygote, say, warm_up


def serve() -> NoReturn:
    """`sys.argv[1]` is JSON: `fd`, and `home`, an empty folder for the folders of orders, removed at the end."""
    given = json.loads(sys.argv[1])
    door = socket.socket(fileno=given["fd"])
    if not descendants.can_be_found():
        say(door, {"failed": "this kernel does not list the children of a process (CONFIG_PROC_CHILDREN)"})
        os._exit(1)
    descendants.adopt_orphans()
    warm_up(())
    say(door, {"ready": True})
    Zygote(door, _Yard(given["home"])).serve()


class _Yard:
    """Where the rooms stand: a folder with a folder for each."""

    def __init__(self, home: str) -> None:
        self._home = home

    def fork(self) -> int:
        return os.fork()

    def room(self, order: dict[str, Any]) -> OpenRoom:
        return OpenRoom(Furnishing(**order["given"]), self._folder(order["box"]))

    def clear(self, number: int, living: Collection[int]) -> None:
        """End what outlived the order's first process, and remove its folder."""
        descendants.end(but=living)
        remove_tree(self._folder(number))

    def leave(self, living: Collection[int]) -> NoReturn:
        """Wait for those that live, which end at once without a worker, and leave nothing."""
        for pid in living:
            os.waitpid(pid, 0)
        descendants.end()
        remove_tree(self._home)
        os._exit(0)

    def _folder(self, number: int) -> str:
        return f"{self._home}/{number}"


def remove_tree(folder: str) -> None:
    """Remove a folder, also where its owner has locked himself out; what can't go now is left."""
    shutil.rmtree(folder, onerror=_open_up)


def _open_up(act: Callable[..., Any], path: str, _why: object) -> None:
    parent = Path(path).parent
    try:
        for place in (parent, Path(path)):
            if stat.S_ISDIR(place.lstat().st_mode):
                place.chmod(0o700)
        if act in (os.open, os.scandir, os.lstat):
            shutil.rmtree(path, ignore_errors=True)
        else:
            act(path)
    except OSError:
        return
