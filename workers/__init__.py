"""Everything that takes jobs out: the dispatcher, the Celery worker around it, executors, sandboxes, the engine.

Read `dispatcher.py` first: it is a job's whole life.
"""
