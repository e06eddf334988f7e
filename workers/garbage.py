"""Python's cycle collector, for a process that keeps much for its whole life and makes much that is soon gone."""

from __future__ import annotations

import gc

#: Objects made, beyond those gone again, before the collector looks. By default 700: a run makes as many, and every
#: hundredth look walks over all that is alive, which is mostly what was there since the start.
_LOOK_AFTER = 50_000


def spare_what_stays() -> None:
    """Take what is there now for what stays, and look for cycles among the rest, and more seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_LOOK_AFTER, 10, 10)
