"""Confined places in which a user's code runs. Read `base.py` for what goes in and out of a code sandbox.

`v8/` runs JavaScript in isolates, `plain_node/` in Node as it is; both are programs of the pool in `node/`. `box/` has
kernel namespace boxes for commands, Python and long-lived programs, the hosts of V8 among them.
"""
