"""A Kubernetes API for tests: it speaks HTTP to the official client, and runs containers as processes of this machine.

Read `shelf.py` (what is stored), `api.py` (the routes), `jobs.py` and `kubelet.py` (what happens by itself), and
`running.py` (how a test starts one). What it answers is held to the published schemas by `test_kubernetes_double.py`.
It is one node without isolation: it tells how Flo gets on with an API server, nothing about a cluster's walls.
"""
