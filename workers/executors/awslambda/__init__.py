"""Hands attempts to a function of AWS Lambda, and hears of them in its answer, or by its call-backs.

Read `executor.py` for the life of an attempt, `verdict.py` for what a function's failure means, `door.py` for the ways
to a function.
"""
