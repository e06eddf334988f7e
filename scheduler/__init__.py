"""Everything that puts jobs in: the HTTP API, webhook ingestion, the cron tick, the relay and the reaper.

Read `app.py` first; `routes/` has one file per noun of the API.
"""
