"""What `flo dev` prints: its own sentences, and each process's lines behind that process's name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

#: ANSI foreground colours, one per process in turn.
_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)


class Voice:
    def __init__(
        self, names: Sequence[str], *, quiet: bool = False, colour: bool = False, out: TextIO = sys.stdout
    ) -> None:
        self._width = max(map(len, [*names, "flo"]))
        self._colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
        self._quiet = quiet
        self._colour = colour
        self._out = out

    def line(self, name: str, text: str) -> None:
        """Pass on a line that a process printed."""
        if not self._quiet:
            self._print(name, text)

    def says(self, text: str) -> None:
        """Say something of our own."""
        self._print("flo", text)

    def _print(self, name: str, text: str) -> None:
        label = name.rjust(self._width)
        if self._colour:
            label = f"\x1b[{self._colours.get(name, 1)}m{label}\x1b[0m"
        try:
            print(f"{label} │ {text}", file=self._out, flush=True)
        except UnicodeEncodeError:
            print(f"{label} | {text.encode('ascii', 'replace').decode()}", file=self._out, flush=True)
        except BrokenPipeError:  # whoever read along has gone; Flo goes on
            self._out = open("/dev/null", "w")  # noqa: SIM115, PTH123
