"""The spine that scheduler and workers share: queues, store, claims, leases, outbox, run events, telemetry.

The truth about a run is in SQL (`store/`); a queue only carries hints (`queues/`). Read `store/tables.py` first.
"""
