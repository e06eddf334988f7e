"""Executes each attempt as one Kubernetes Job that no worker waits for.

Read `executor.py` (a Job is made), then `keeper.py` (what becomes of it); `manifest.py` and `verdict.py` decide purely.
"""
