"""What crosses a border: jobs, runs, flow documents, events, outcomes, errors, settings.

Pydantic and frozen values only; imports nothing else of Flo's. Read `run.py` first.
"""
