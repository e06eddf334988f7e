"""Asks a program on this machine something, and takes no answer for a no."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

#: Seconds; a daemon that is away makes its client wait.
_PATIENCE = 10


@dataclass(frozen=True, slots=True)
class Said:
    """What a program answered; `ok` is false also when it is not there or said nothing in time."""

    ok: bool
    text: str


def ask(*command: str, cwd: Path | None = None, patience: float = _PATIENCE) -> Said:
    """Run a program; give the first line that it printed, of its complaint if it failed."""
    program = shutil.which(command[0])
    if program is None:
        return Said(False, f"{command[0]} is not on PATH")
    try:
        done = subprocess.run(
            [program, *command[1:]], cwd=cwd, capture_output=True, text=True, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired:
        return Said(False, f"{command[0]} did not answer within {patience:g} s")
    except OSError as refusal:
        return Said(False, f"{command[0]} can't be started ({refusal.strerror})")
    said = (done.stdout if done.returncode == 0 else done.stderr or done.stdout).strip()
    return Said(done.returncode == 0, said.partition("\n")[0])
