"""What workers share: circuits, and results that are kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "circuits",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "kept_results",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("app", sa.String(length=100), nullable=False),
        sa.Column("node_type", sa.String(length=200), nullable=False),
        sa.Column("outputs", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_kept_results_app", "kept_results", ["app", "node_type"])
    op.create_index("ix_kept_results_expires_at", "kept_results", ["expires_at"])


def downgrade() -> None:
    op.drop_table("kept_results")
    op.drop_table("circuits")
