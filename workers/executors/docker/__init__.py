"""The executor that gives each run a container of its own. Read `executor.py`, then `workers/sandboxes/docker/`."""
