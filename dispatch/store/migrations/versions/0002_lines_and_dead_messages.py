"""Runs that wait in line for their app's limits, and messages that no worker could read."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_RUNNING = "status = 'running'"
_IN_LINE = "status = 'queued' AND blocked_by IS NOT NULL"
_KEYED = "status = 'queued' AND concurrency_key IS NOT NULL"


def upgrade() -> None:
    op.add_column("apps", sa.Column("gated", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("apps", sa.Column("key_concurrency", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("runs", sa.Column("blocked_by", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("called_at", sa.BigInteger(), nullable=True))
    op.add_column("outbox", sa.Column("called", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.drop_index("ix_runs_running", table_name="runs")
    _partial_index("ix_runs_running", ["app", "concurrency_key", "owner"], _RUNNING)
    _partial_index("ix_runs_line", ["app", "priority", "created_at", "id"], _IN_LINE)
    _partial_index("ix_runs_key", ["app", "concurrency_key", "priority", "created_at", "id"], _KEYED)
    _partial_index("ix_runs_dead", ["id"], "status = 'dead'")
    op.create_table(
        "app_starts",
        sa.Column("app", sa.String(length=100), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("app", "number"),
    )
    op.create_table(
        "dead_messages",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("carrier", sa.String(length=20), nullable=False),
        sa.Column("lane", sa.String(length=200), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_dead_messages_received_at", "dead_messages", ["received_at"])


def downgrade() -> None:
    op.drop_table("dead_messages")
    op.drop_table("app_starts")
    for name in ("ix_runs_dead", "ix_runs_key", "ix_runs_line", "ix_runs_running"):
        op.drop_index(name, table_name="runs")
    op.drop_column("outbox", "called")
    op.drop_column("runs", "called_at")
    op.drop_column("runs", "blocked_by")
    op.drop_column("apps", "key_concurrency")
    op.drop_column("apps", "gated")
    _partial_index("ix_runs_running", ["owner"], _RUNNING)


def _partial_index(name: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "runs", columns, sqlite_where=where, postgresql_where=where)
