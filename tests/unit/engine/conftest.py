"""Lets these tests use the documents of `tests/unit/schemas`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "schemas"))
