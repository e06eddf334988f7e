"""Attempts that are lent to executors whose runs outlive their worker."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "loans",
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("backend", sa.String(length=30), nullable=False),
        sa.Column("handle", sa.String(length=300), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("order", sa.Text(), nullable=False),
        sa.Column("taken_by", sa.String(length=200), nullable=True),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_index("ix_loans_backend", "loans", ["backend"])


def downgrade() -> None:
    op.drop_table("loans")
