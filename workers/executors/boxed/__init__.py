"""Runs whose engine lives in a namespace box. Read `engine_box.py` for one box, then `per_run.py` and `per_app.py`."""
