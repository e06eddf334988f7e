"""What each built-in node type takes and gives; how it does so is in `workers/nodes/`.

Here, so that a flow can be checked where no node can run. Read `spec.py` first.
"""
