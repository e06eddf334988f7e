"""Runs that wait without a worker: what they wait for, and the runs that they have started."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("parent_run", sa.String(length=40), nullable=True))
    op.add_column("runs", sa.Column("depth", sa.Integer(), nullable=False, server_default="0"))
    _partial_index("ix_runs_waiting", "runs", ["run_at"], "status = 'waiting'")
    op.create_table(
        "waitpoints",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("node_id", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("child_run", sa.String(length=40), nullable=True),
        sa.Column("answered_at", sa.BigInteger(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("heard", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_waitpoints_run", "waitpoints", ["run_id"])
    _partial_index("ix_waitpoints_child", "waitpoints", ["child_run"], "child_run IS NOT NULL AND answered_at IS NULL")


def downgrade() -> None:
    op.drop_table("waitpoints")
    op.drop_index("ix_runs_waiting", table_name="runs")
    op.drop_column("runs", "depth")
    op.drop_column("runs", "parent_run")


def _partial_index(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)
