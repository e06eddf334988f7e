"""Confined places in which a user's code runs. Read `base.py` for what goes in and out, then `v8.py`.

`v8.py` keeps the pool, `v8_host.py` one Node process, `v8_outcome.py` turns a host's answer into an outcome,
`v8_setup.py` tells what is missing. The code that runs inside Node is in `v8/`, `host.mjs` first.
"""
