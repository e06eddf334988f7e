"""A pool of Node processes that run code, whichever program they are: `v8/` (isolates) or `plain_node/` (no sandbox).

Read `pool.py` first. `host.py` is one process and the socket to it, `jail.py` and `boxed.py` are where it lives,
`seat.py` is who is guilty when one dies, `outcome.py` turns a host's answer into an outcome.
"""
