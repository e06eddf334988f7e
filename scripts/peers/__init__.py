"""Celery, dramatiq, huey and taskiq beside Flo, in a throw-away environment of their own. Read `peer.py` first."""
