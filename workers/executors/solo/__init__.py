"""Nodes that run alone, each in a sandbox of its own. Read `places.py`, then `one_node.py`; `open.py` says how.

`pod.py` is for those in pods: no sandbox of this worker, but runs of their own.
"""
