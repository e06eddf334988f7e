"""What runs on the far side of the wall: standard library only, as nothing else is there. Start at `supervisor.py`."""
