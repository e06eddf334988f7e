"""What the engine in an image was made of, to tell whether it is the worker's own."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import schemas
import workers

#: The label of an image that carries the fingerprint; one without it is taken as it is.
LABEL = "flo.sources"


@cache
def fingerprint() -> str:
    """Name the sources that an engine is made of, as this process has them."""
    found = hashlib.sha256()
    for package in (schemas, workers):
        home = Path(package.__file__ or "").parent
        for path in sorted(home.rglob("*")):
            inside = path.relative_to(home)
            if path.suffix in {".py", ".js", ".mjs"} and "node_modules" not in inside.parts:
                found.update(f"{home.name}/{inside}\n".encode())
                found.update(path.read_bytes())
    return found.hexdigest()[:16]
