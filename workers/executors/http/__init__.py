"""The `http` executor: hands attempts to `flo executor` processes. Read `executor.py`, then `endpoint.py`."""
