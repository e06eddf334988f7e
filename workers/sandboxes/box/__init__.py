"""The namespace sandbox: boxes of kernel namespaces for commands, Python and long-lived programs.

Read `base.py` for the port, then `box.py` for a box's life. `inside/` is what runs on the far side of the wall;
`zygote.py` and `bubblewrap.py` are the two ways in, `open.py` chooses one, `probe.py` says which would work.
"""
