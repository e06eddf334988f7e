"""Containers of a Docker daemon, here or elsewhere. `spec.py` says how one is locked in, `container.py` is its life."""
