"""Where the V8 sandbox's own program is, and what to do when it does not work."""

from __future__ import annotations

import subprocess
from pathlib import Path

from schemas.errors import FloError, Unavailable
from workers.sandboxes.node.setup import FIX, explain_start, find_node

#: The Node program that runs isolates, with its own package.json and node_modules.
HOST_FOLDER = Path(__file__).parent


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
    words = tried.stderr.decode(errors="replace")
    return None if tried.returncode == 0 else explain_start("V8", tried.returncode, words)


def check_isolated_vm(folder: Path = HOST_FOLDER) -> None:
    """Raise Unavailable with the fix if isolated-vm is not installed."""
    if not (folder / "node_modules" / "isolated-vm" / "package.json").is_file():
        raise Unavailable(f"The Node package isolated-vm is missing from {folder}: {FIX}")
