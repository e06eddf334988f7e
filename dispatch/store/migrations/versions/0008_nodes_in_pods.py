"""Runs that are one node, alone in a pod of a cluster."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("node", sa.String(length=200), nullable=True))


def downgrade() -> None:
    op.drop_column("runs", "node")
