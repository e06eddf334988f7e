"""SQL, where the truth about every run is kept: tables, sessions, and one file of queries per noun.

Read `tables.py` first, then `writer.py`, through which every write to a run goes in batches.
"""
