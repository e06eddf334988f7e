"""Attacks on the namespace sandbox, each over every way into a box. Bombs are small: the limits are in `attacks.py`."""
