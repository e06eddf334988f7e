"""What can come between Flo and a cluster's API.

ClusterTrouble
├── ClusterAway   it does not answer, or is too busy to: try again
├── Rejected      it will not do this, however often it is asked
└── TooOld        what a watch is to go on from is forgotten: list again
"""

from __future__ import annotations


class ClusterTrouble(Exception):
    """Something came between Flo and a cluster's API."""


class ClusterAway(ClusterTrouble):
    """The API does not answer, or is too busy to."""


class Rejected(ClusterTrouble):
    """The API will not do this."""


class TooOld(ClusterTrouble):
    """What the watch is to go on from is forgotten."""
