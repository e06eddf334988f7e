"""What a user of Flo imports: `from flo import FloClient`. The command line is in `cli/`; read `client.py` first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flo.client import AsyncFloClient, FloClient
    from flo.errors import FloError

__all__ = ["AsyncFloClient", "FloClient", "FloError"]

_HOMES = {"AsyncFloClient": "flo.client", "FloClient": "flo.client", "FloError": "flo.errors"}


def __getattr__(name: str) -> object:
    """Import on first use, so that the command line starts at once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'flo' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
