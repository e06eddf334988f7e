"""Puts an example package where Python finds it, as if it were installed."""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGE = Path(__file__).parent / "package"
sys.path.append(str(PACKAGE))
