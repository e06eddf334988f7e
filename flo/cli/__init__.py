"""The `flo` command: one file per command, put together in `app.py`; heavy imports wait until a command needs them."""

from flo.cli.app import main

__all__ = ["main"]
