"""Lets these tests import the example package; its entry points are for the processes that they start."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "package"))
