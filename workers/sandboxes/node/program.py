"""What a Node host program is, and the command line that starts it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from schemas import json
from schemas.json import JSONObject


@dataclass(frozen=True, slots=True, kw_only=True)
class HostProgram:
    """A program for Node that speaks one JSON value per line over descriptor 0 (`v8/host.mjs` lists the words)."""

    #: What messages call it: "The V8 host ...".
    name: str
    #: Where it lies, with whatever it needs.
    folder: Path
    #: The file to start, below the folder.
    main: str = "host.mjs"
    #: Options of Node.
    flags: tuple[str, ...] = ()
    #: Node itself may read its folder, and nothing else, and write and start nothing (Node's permission model).
    is_fenced: bool = False
    #: The program's one argument, as JSON.
    settings: JSONObject = field(default_factory=dict)
    #: Its code has no effect but result and logs, so a run whose host died may start again.
    repeats: bool = True

    def command(self, *, node: Path, folder: Path) -> list[str]:
        """Give the command line, with the places of Node and of the folder as the program will see them."""
        fence = _fence(folder) if self.is_fenced else []
        return [str(node), *self.flags, *fence, str(folder / self.main), json.dumps(self.settings)]


def _fence(folder: Path) -> list[str]:
    # The second is how node-gyp-build tells musl from glibc.
    return ["--permission", "--allow-addons", *(f"--allow-fs-read={path}" for path in (folder, "/etc/alpine-release"))]
