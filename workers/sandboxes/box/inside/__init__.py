"""What runs on the far side of the wall. Standard library only, as nothing else is there; read `supervisor.py` first."""
