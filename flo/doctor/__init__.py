"""`flo doctor`: what of Flo works on this machine, and what to install for the rest. Read `checks.py`."""
