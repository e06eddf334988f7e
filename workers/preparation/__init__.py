"""Everything between a node's source as written and what a sandbox runs: TypeScript, npm packages, hub packages.

Read `preparer.py` first.
"""
