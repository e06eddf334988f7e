"""The lanes: how a job's message gets from the scheduler to a worker. Read `base.py` first, then `celery_app.py`."""
