"""Runs Alembic on the connection it is given (`dispatch.store.migrate`), or offline on FLO_DATABASE_URL."""

from __future__ import annotations

from alembic import context

from dispatch.store.tables import Table

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("run migrations through dispatch.store.migrate: opening a Store brings its database to head")
context.configure(connection=connection, target_metadata=Table.metadata, render_as_batch=True)
context.run_migrations()
