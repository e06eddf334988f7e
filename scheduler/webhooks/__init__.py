"""Webhook ingestion: `signatures.py` believes a sender or not, `payload.py` reads the request, `intake.py` keeps it.

The route is `scheduler/routes/hooks.py`.
"""
