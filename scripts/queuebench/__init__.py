"""The two sides of `scripts/bench queue`: `flo_side.py` and `peer_side.py`."""
