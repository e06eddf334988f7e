"""Runs a flow document: `drive.py` has `run_flow`, read it first.

`graph.py`, `advance.py`, `retry.py`, `ports.py` and `checkpoint.py` decide; only `drive.py` does things.
"""
