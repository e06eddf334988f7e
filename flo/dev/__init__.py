"""`flo dev`: the whole of Flo on one machine, as a family of processes. Read `stack.py` first."""
